"""A checkpoint and data enter; how errors of each weight count on these data leaves.

One pass of the dense model: the second moment of every weight's inputs, and for the rows of
recurrent weights how much each gate counts in the outputs.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import linear

from ttcompress.calibration.influence import Rows, influence
from ttcompress.calibration.layered import Ran
from ttcompress.calibration.sources import DataSource, Seen
from ttcompress.checkpoint import Checkpoint
from ttcompress.layers.stacks import Layer, layers_of
from ttcompress.model.geometry import DirectionNames
from ttcompress.model.weights import OtherTensor, RecurrentStack, Weight
from ttcompress.system.progress import Progress, silent
from ttcompress.trains.weighting import Weighting

LEAST_POSITIONS = 2
"""Of inputs for each column of a weight: with fewer their second moment says more of chance."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """What the data showed.

    `weightings` are by weight; `why` says of the others why they have none. `stacks` (prefixes) and
    `linears` (paths) were called, in that order; `positions` are the time steps of the stack that
    saw most. `source` shows the data again, to any values of the model's tensors.
    """

    weightings: Mapping[str, Weighting]
    why: Mapping[str, str]
    stacks: tuple[str, ...]
    linears: tuple[str, ...]
    positions: int
    source: DataSource


def calibrate(
    checkpoint: Checkpoint, source: DataSource, progress: Progress = silent
) -> Calibration:
    """Collect the weighting of every weight whose inputs the data show, in one pass over them."""
    found = _Collected(checkpoint)
    for done, seen in enumerate(source.seen(found.dense)):
        progress("calibrate", done, source.batches)
        found.add(seen)
    progress("calibrate", source.batches, source.batches)
    weightings, why = _sorted_out(checkpoint, found.sums)
    positions = max(found.steps.values(), default=0)
    return Calibration(weightings, why, tuple(found.steps), tuple(found.linears), positions, source)


def names_of(checkpoint: Checkpoint) -> Iterator[str]:
    """All names of all tensors that belong to the model's state dict."""
    tensors: list[Weight | OtherTensor] = [*checkpoint.weights, *checkpoint.others]
    for tensor in tensors:
        yield from (name for name in tensor.names if name in checkpoint.source_paths)


@dataclass
class _Sum:
    """Of one weight, over the batches so far: how many inputs, what its rows count, x x'."""

    positions: int = 0
    rows: Tensor = field(default_factory=lambda: torch.zeros(()))
    moment: Tensor = field(default_factory=lambda: torch.zeros(()))

    def add(self, positions: int, rows: Tensor, moment: Tensor) -> None:
        self.positions += positions
        self.rows, self.moment = self.rows + rows, self.moment + moment

    @property
    def weighting(self) -> Weighting:
        return Weighting.damped(self.rows / self.positions, self.moment / self.positions)


class _Collected:
    """What is kept of the batches: sums by weight, and time steps by stack."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.dense = {name: checkpoint.tensor(name) for name in names_of(checkpoint)}
        self.sums: defaultdict[str, _Sum] = defaultdict(_Sum)
        self.steps: Counter[str] = Counter()
        self.linears: dict[str, None] = {}
        self._stacks = {stack.prefix: stack for stack in checkpoint.stacks}
        self._shapes = {w.name: w.shape for w in checkpoint.weights if len(w.names) == 1}

    def add(self, seen: Seen) -> None:
        """Add up one batch."""
        for prefix, calls in seen.stacks.items():
            for runs in calls:
                self._add_stack(self._stacks[prefix], runs)
        for path, inputs in seen.linears.items():
            self.linears[path] = None
            for values in inputs:
                self._add_linear(f"{path}.weight", values)
        for path, counts in seen.embeddings.items():
            self._add_embedding(f"{path}.weight", counts)

    def _add_linear(self, name: str, inputs: Tensor) -> None:
        if (shape := self._shapes.get(name)) is not None:
            rows = torch.full(shape[:1], float(len(inputs)))
            self.sums[name].add(len(inputs), rows, _second_moment(inputs))

    def _add_embedding(self, name: str, counts: Tensor) -> None:
        """A row counts as often as it is looked up; the values in it count alike."""
        if (shape := self._shapes.get(name)) is not None:
            total = int(counts.sum())
            eye = torch.eye(shape[1], dtype=torch.float64)
            self.sums[name].add(total, counts, total * eye)

    def _add_stack(self, stack: RecurrentStack, runs: tuple[Ran, ...]) -> None:
        self.steps[stack.prefix] += runs[0].inputs[..., 0].numel()
        for layer, ran in zip(layers_of(stack), runs, strict=True):
            for direction, names in enumerate(layer.directions):
                self._add_direction(layer, names, ran, direction)

    def _add_direction(self, layer: Layer, names: DirectionNames, ran: Ran, direction: int) -> None:
        """Both matrices of a layer in one direction."""
        saw = (ran.inputs, ran.hidden(direction))
        rows = _influences(layer, names, self.dense, ran, direction)
        for name, row, values in zip((names.weight_ih, names.weight_hh), rows, saw, strict=True):
            positions = ran.flat(values)
            added = ran.flat(row).double().sum(0), _second_moment(positions)
            self.sums[layer.stack.prefix + name].add(len(positions), *added)


def _second_moment(values: Tensor) -> Tensor:  # (positions, n) -> (n, n), float64, summed
    wide = values.double()
    return wide.mT @ wide


def _influences(
    layer: Layer, names: DirectionNames, dense: Mapping[str, Tensor], ran: Ran, direction: int
) -> Rows:
    def tensor(name: str | None) -> Tensor | None:
        return None if name is None else dense[layer.stack.prefix + name].float()

    hidden = ran.hidden(direction)
    from_inputs = linear(ran.inputs, dense[layer.stack.prefix + names.weight_ih].float())
    from_hidden = linear(hidden, dense[layer.stack.prefix + names.weight_hh].float())
    bias_ih, bias_hh = tensor(names.bias_ih), tensor(names.bias_hh)
    if bias_ih is not None and bias_hh is not None:
        from_inputs, from_hidden = from_inputs + bias_ih, from_hidden + bias_hh
    kind = layer.stack.kind
    return influence(kind, from_inputs, from_hidden, hidden, ran.real, direction == 1)


def _sorted_out(
    checkpoint: Checkpoint, sums: Mapping[str, _Sum]
) -> tuple[dict[str, Weighting], dict[str, str]]:
    weightings, why = {}, {}
    for weight in checkpoint.weights:
        if weight.name not in sums:
            tied = len(weight.names) > 1
            why[weight.name] = "is tied" if tied else "has inputs that the data do not show"
            continue
        count, least = sums[weight.name].positions, LEAST_POSITIONS * weight.shape[1]
        if count < least:
            why[weight.name] = f"saw {count:,} inputs, and {least:,} are the least"
        else:
            weightings[weight.name] = sums[weight.name].weighting
    return weightings, why
