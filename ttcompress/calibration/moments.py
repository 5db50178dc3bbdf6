"""Measures how much errors in each weight matter on a user's data, in one pass of the dense model.

`calibrate` gives every weight a `Weighting`: the second moment of its inputs, and for the rows of
recurrent weights how much each gate affects the outputs (see `measure_influence`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import linear

from ttcompress.calibration.influence import measure_influence
from ttcompress.calibration.layerwise import LayerPass
from ttcompress.calibration.sources import Activations, DataSource
from ttcompress.checkpoint import Checkpoint
from ttcompress.layers.stacks import layers_of
from ttcompress.model.weights import RecurrentStack
from ttcompress.system.progress import Progress, silent
from ttcompress.trains.weighting import Weighting

LEAST_POSITIONS = 2
"""Inputs needed for each column of a weight: with fewer their second moment is mostly chance."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """What the data showed.

    `weightings` are by weight; `why` says why the others have none. `stacks` (prefixes) and
    `linears` (paths) list what was called, in order; `positions` counts the time steps of the stack
    that had most. `source` runs the data again, with any values of the model's tensors.
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
    """Collect the weighting of every weight that the data reach, in one pass over them."""
    collector = _Collector(checkpoint)
    for done, activations in enumerate(source.run(collector.dense)):
        progress("calibrate", done, source.batches)
        collector.add(activations)
    progress("calibrate", source.batches, source.batches)
    weightings, why = {}, {}
    for weight in checkpoint.weights:
        if (found := collector.sums.get(weight.name)) is None:
            tied = len(weight.names) > 1
            why[weight.name] = "it is tied" if tied else "the data do not reach it"
        elif found.positions < (least := LEAST_POSITIONS * weight.shape[1]):
            why[weight.name] = (
                f"the data gave {found.positions:,} inputs, but at least {least:,} are needed"
            )
        else:
            rows, moment = found.rows / found.positions, found.moment / found.positions
            weightings[weight.name] = Weighting.damped(rows, moment)
    steps, linears = collector.steps, collector.linears
    positions = max(steps.values(), default=0)
    return Calibration(weightings, why, tuple(steps), tuple(linears), positions, source)


@dataclass
class _Sum:
    """Sums for one weight over the batches so far: inputs, importance of its rows, x x'."""

    positions: int = 0
    rows: Tensor = field(default_factory=lambda: torch.zeros(()))
    moment: Tensor = field(default_factory=lambda: torch.zeros(()))

    def add(self, inputs: Tensor, rows: Tensor) -> None:  # (positions, columns), (rows,)
        wide = inputs.double()
        self.add_moment(len(inputs), rows, wide.mT @ wide)

    def add_moment(self, positions: int, rows: Tensor, moment: Tensor) -> None:
        self.positions += positions
        self.rows, self.moment = self.rows + rows, self.moment + moment


class _Collector:
    """Accumulates over batches: sums by weight, time steps by stack, the linear layers called.

    A tied weight has no sum, because it has inputs of two kinds.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.dense = checkpoint.state_dict()
        self.sums: defaultdict[str, _Sum] = defaultdict(_Sum)
        self.steps: Counter[str] = Counter()
        self.linears: dict[str, None] = {}
        self._stacks = {stack.prefix: stack for stack in checkpoint.stacks}
        self._shapes = {w.name: w.shape for w in checkpoint.weights if len(w.names) == 1}

    def add(self, activations: Activations) -> None:
        """Add up one batch."""
        for prefix, calls in activations.stacks.items():
            for passes in calls:
                self._add_stack(self._stacks[prefix], passes)
        for path, inputs in activations.linears.items():
            self.linears[path] = None
            if (shape := self._shapes.get(name := f"{path}.weight")) is not None:
                for values in inputs:
                    self.sums[name].add(values, torch.full(shape[:1], float(len(values))))
        for path, counts in activations.embeddings.items():
            if (shape := self._shapes.get(name := f"{path}.weight")) is not None:
                # A row counts as often as it is looked up; all values in it count alike.
                total = int(counts.sum())
                eye = torch.eye(shape[1], dtype=torch.float64)
                self.sums[name].add_moment(total, counts, total * eye)

    def _add_stack(self, stack: RecurrentStack, passes: tuple[LayerPass, ...]) -> None:
        self.steps[stack.prefix] += passes[0].inputs[..., 0].numel()
        for layer, one in zip(layers_of(stack), passes, strict=True):
            for direction, names in enumerate(layer.directions):
                ih, hh = (stack.prefix + name for name in (names.weight_ih, names.weight_hh))
                hidden = one.hidden(direction)
                from_inputs = linear(one.inputs, self.dense[ih].float())
                from_hidden = linear(hidden, self.dense[hh].float())
                if names.bias_ih is not None and names.bias_hh is not None:
                    from_inputs = from_inputs + self.dense[stack.prefix + names.bias_ih].float()
                    from_hidden = from_hidden + self.dense[stack.prefix + names.bias_hh].float()
                counts = measure_influence(
                    stack.kind, from_inputs, from_hidden, hidden, one.real, direction == 1
                )
                for name, rows, values in zip((ih, hh), counts, (one.inputs, hidden), strict=True):
                    self.sums[name].add(one.flat(values), one.flat(rows).double().sum(0))
