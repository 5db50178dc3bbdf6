"""Measures how much errors in each weight matter on a user's data, in one pass of the dense model.

`calibrate` gives every weight a `Weighting`: the second moment of its inputs, and for the rows of
recurrent weights how much each gate affects the outputs (see `measure_influence`). Where inputs are
few or missing, it is shrunk towards a guess in the same units (see `prior`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf
from statistics import geometric_mean

import torch
from torch import Tensor
from torch.nn.functional import linear

from ttcompress.calibration.influence import Rows, measure_influence
from ttcompress.calibration.layerwise import LayerPass
from ttcompress.calibration.prior import PriorSource
from ttcompress.calibration.sources import Activations, DataSource
from ttcompress.checkpoint import Checkpoint
from ttcompress.errors import RecipeError
from ttcompress.layers.stacks import layers_of
from ttcompress.model.geometry import stored_name
from ttcompress.model.weights import ROLES, RecurrentStack
from ttcompress.system.progress import Progress, silent
from ttcompress.trains.weighting import Weighting

PSEUDO_INPUTS = 1.0
"""Inputs, for each column of a weight, that a guess counts as much as.

The mean of measured and guessed moments, weighted so, is the posterior mean of a covariance with an
inverse Wishart prior (Chen 1979, J. R. Statist. Soc. B 41, 235). With as many inputs as columns a
measured second moment is still singular, or nearly: half of it is then the guess.
"""

ENOUGH, MARK = 32, 1e-4
"""Different inputs for each column, up to which they are counted, and how far apart they are."""

FEW = 0.8
"""A weight with less than this measured gets a note: with fewer than 4 inputs a column."""


@dataclass(frozen=True, eq=False)
class Prior:
    """A guess of the weighting of one weight, which counts as much as some inputs.

    `rows` is D, (rows,); `columns` is the diagonal of C, (columns,).
    """

    rows: Tensor
    columns: Tensor

    def share(self, inputs: int) -> float:
        """How much of a mean of measured and guessed values is measured, from 0 to 1."""
        return inputs / (inputs + PSEUDO_INPUTS * len(self.columns))

    def shrink(self, moment: Tensor, inputs: int) -> Tensor:  # (columns, columns), both
        """A mean product of inputs, or of two models' inputs, shrunk towards the guess."""
        known = self.share(inputs)
        return known * moment + (1 - known) * self.columns.diag()


@dataclass(frozen=True, eq=False)
class Calibration:
    """What the data showed.

    `weightings` has every weight of the model, so that all errors are in the same units; `inputs`
    says how many different inputs the data gave for each, and `priors` what was guessed. `stacks`
    (prefixes) and `linears` (paths) list what was called, in order; `positions` counts the time
    steps of the stack that had most. `source` runs the data again, with any values of the model's
    tensors.
    """

    weightings: Mapping[str, Weighting]
    priors: Mapping[str, Prior]
    inputs: Mapping[str, int]
    stacks: tuple[str, ...]
    linears: tuple[str, ...]
    positions: int
    source: DataSource

    @property
    def notes(self) -> dict[str, str]:
        """What the user should know of the weights with few inputs or none, by name."""
        few = {n: count for n, count in self.inputs.items() if self.weightings[n].known < FEW}
        return {name: _note(count, self.weightings[name].known) for name, count in few.items()}


def _note(inputs: int, known: float) -> str:
    if not inputs:
        return "not calibrated: the data do not reach it, so its inputs were estimated"
    kind = "input" if inputs == 1 else "different inputs"
    return f"calibrated with {inputs:,} {kind}: shrunk towards a prior ({known:.0%} from data)"


def calibrate(
    checkpoint: Checkpoint, source: DataSource, progress: Progress = silent
) -> Calibration:
    """Find the weighting of every weight, in one pass over the data.

    Raises:
        RecipeError: the data hold NaN or infinity, or the model makes them from the data.
    """
    collector = _Collector(checkpoint)
    for done, activations in enumerate(source.run(collector.dense)):
        progress("calibrate", done, source.batches)
        collector.add(activations)
    progress("calibrate", source.batches, source.batches)
    sums = {weight.name: collector.sums[weight.name] for weight in checkpoint.weights}
    for name, found in sums.items():
        if not bool(found.moment.isfinite().all() and found.rows.isfinite().all()):
            raise RecipeError(
                f"calibration: the inputs of {name} hold NaN or infinity. "
                "Use other data, or check that the model gives finite outputs on them."
            )
    priors = _guess(checkpoint)
    weightings = {
        name: Weighting.damped(
            known * found.mean_rows + (1 - known) * prior.rows,
            prior.shrink(found.mean_moment, found.different),
            known,
        )
        for name, found in sums.items()
        for prior in [priors[name]]
        for known in [prior.share(found.different)]
    }
    inputs = {name: found.different for name, found in sums.items()}
    steps, linears = collector.steps, collector.linears
    positions = max(steps.values(), default=0)
    return Calibration(weightings, priors, inputs, tuple(steps), tuple(linears), positions, source)


@dataclass
class _Sum:
    """Sums for one weight over the batches so far: inputs, importance of its rows, x x'."""

    positions: int = 0
    rows: Tensor = field(default_factory=lambda: torch.zeros(()))
    moment: Tensor = field(default_factory=lambda: torch.zeros(()))
    _marks: set[float] = field(default_factory=set)

    @property
    def mean_rows(self) -> Tensor:
        """Per input; 0 if there was none."""
        return self.rows / max(1, self.positions)

    @property
    def mean_moment(self) -> Tensor:
        """Per input; 0 if there was none."""
        return self.moment / max(1, self.positions)

    @property
    def different(self) -> int:
        """How many inputs differ: copies of a sequence, or a constant one, say little."""
        if not self._marks or len(self._marks) >= ENOUGH * len(self.moment):
            return self.positions
        return len(self._marks)

    def add(  # (positions, columns), (rows,), (positions, any): equal where nothing is new
        self, inputs: Tensor, rows: Tensor, situations: Tensor
    ) -> None:
        wide = inputs.double()
        self.add_moment(len(inputs), rows, wide.mT @ wide)
        if len(self._marks) < ENOUGH * inputs.shape[1]:
            direction = torch.linspace(1, 2, situations.shape[1], dtype=torch.float64).cos()
            marks = (situations.double() @ direction / MARK).round()
            self._marks.update(marks.tolist())

    def add_moment(self, positions: int, rows: Tensor, moment: Tensor) -> None:
        self.positions += positions
        self.rows, self.moment = self.rows + rows, self.moment + moment


class _Collector:
    """Accumulates over batches: sums by weight, time steps by stack, the linear layers called.

    A tied weight counts as what multiplies by it, since a row that is looked up is one of many.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.dense = checkpoint.state_dict()
        self.sums: defaultdict[str, _Sum] = defaultdict(_Sum)
        self.steps: Counter[str] = Counter()
        self.linears: dict[str, None] = {}
        self._stacks = {stack.prefix: stack for stack in checkpoint.stacks}
        self._weights = {name: weight for weight in checkpoint.weights for name in weight.names}

    def add(self, activations: Activations) -> None:
        """Add up one batch."""
        for prefix, calls in activations.stacks.items():
            for passes in calls:
                self._add_stack(self._stacks[prefix], passes)
        for path, inputs in activations.linears.items():
            self.linears[path] = None
            if (weight := self._weights.get(f"{path}.weight")) is not None:
                for values in inputs:
                    rows = torch.full(weight.shape[:1], float(len(values)))
                    self.sums[weight.name].add(values, rows, values)
        for path, counts in activations.embeddings.items():
            weight = self._weights.get(f"{path}.weight")
            if weight is not None and weight.looked_up:
                # A row counts as often as it is looked up; all values in it count alike.
                total = int(counts.sum())
                eye = torch.eye(weight.shape[1], dtype=torch.float64)
                self.sums[weight.name].add_moment(total, counts, total * eye)

    def _add_stack(self, stack: RecurrentStack, passes: tuple[LayerPass, ...]) -> None:
        self.steps[stack.prefix] += passes[0].inputs[..., 0].numel()
        for layer, one in zip(layers_of(stack), passes, strict=True):
            for direction, names in enumerate(layer.directions):
                ih, hh = (stored_name(stack, name) for name in (names.weight_ih, names.weight_hh))
                hidden = one.hidden(direction)
                from_inputs = linear(one.inputs, self.dense[ih].float())
                from_hidden = linear(hidden, self.dense[hh].float())
                if names.bias_ih is not None and names.bias_hh is not None:
                    from_inputs = from_inputs + self.dense[stack.prefix + names.bias_ih].float()
                    from_hidden = from_hidden + self.dense[stack.prefix + names.bias_hh].float()
                counts = measure_influence(
                    stack.kind, from_inputs, from_hidden, hidden, one.real, direction == 1
                )
                if names.weight_hr is not None:
                    counts = self._add_projection(
                        stack.prefix + names.weight_hr, hidden, one, counts
                    )
                situations = one.flat(torch.cat([one.inputs, hidden], 2))
                for name, rows, values in zip((ih, hh), counts, (one.inputs, hidden), strict=True):
                    kept = self._weights[name].name
                    influence = one.flat(rows).double().sum(0)
                    self.sums[kept].add(one.flat(values), influence, situations)

    def _add_projection(self, name: str, hidden: Tensor, one: LayerPass, counts: Rows) -> Rows:
        """Add what is known of a projection's inputs, and see the others' rows through it.

        Its inputs are in no pass. Their mean square is what makes the outputs as large as they are.
        """
        matrix = self.dense[name].double()
        outputs = one.flat(hidden).double()
        square = outputs.square().sum() / matrix.square().sum().clamp(min=1e-30)
        rows, columns = matrix.shape
        moment = square * torch.eye(columns, dtype=torch.float64)
        ones = torch.full((rows,), float(len(outputs)))
        self.sums[self._weights[name].name].add_moment(len(outputs), ones, moment)
        through = matrix.square().sum(0).repeat(counts[0].shape[-1] // columns)
        return counts[0] * through, counts[1] * through


def _guess(checkpoint: Checkpoint) -> dict[str, Prior]:
    """Guess the weighting of every weight, by random inputs (see `prior`).

    Guesses of scale are right within a factor of 2 or so, but those of single rows and columns less
    often: each is drawn half-way, in logarithms, to the mean over all weights of the role.
    """
    collector = _Collector(checkpoint)
    for activations in PriorSource(checkpoint.stacks, checkpoint.weights).run(collector.dense):
        collector.add(activations)
    drawn: dict[str, Prior] = {}
    for role in ROLES:
        weights = [weight for weight in checkpoint.weights if weight.role == role]
        found = {w.name: collector.sums[w.name] for w in weights if w.name in collector.sums}
        row = _typical(one.mean_rows for one in found.values())
        column = _typical(one.mean_moment.diagonal() for one in found.values())
        for weight in weights:
            rows, columns = (torch.ones(size, dtype=torch.float64) for size in weight.shape)
            if weight.name in found:
                rows = found[weight.name].mean_rows / row
                columns = found[weight.name].mean_moment.diagonal() / column
            drawn[weight.name] = Prior(row * rows.sqrt(), column * columns.sqrt())
    return drawn


def _typical(values: Iterable[Tensor]) -> float:
    """The geometric mean of the means; 1 if there is none."""
    means = [float(one.mean()) for one in values]
    return geometric_mean(positive) if (positive := [m for m in means if 0 < m < inf]) else 1.0
