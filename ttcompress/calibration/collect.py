"""A checkpoint and data enter; how errors of each weight count on these data leaves.

One pass of the dense model: the second moment of every weight's inputs, and for the rows of
recurrent weights how much each gate counts in the outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import linear

from ttcompress.calibration.influence import Rows, influence
from ttcompress.calibration.layers import Layer, Ran, layers_of, run_layer
from ttcompress.calibration.sources import Seen, Source
from ttcompress.checkpoint import Checkpoint
from ttcompress.modules.geometry import DirectionNames
from ttcompress.progress import Progress, silent
from ttcompress.trains.weighting import Weighting
from ttcompress.weights import OtherTensor, Weight

LEAST_POSITIONS = 2
"""Of inputs for each column of a weight: with fewer their second moment says more of chance."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """What the data showed.

    `weightings` are by weight; `why` says of the others why they have none. `seen` is what the
    dense model's layers saw, `source` gives the same of any other values of its tensors.
    """

    weightings: Mapping[str, Weighting]
    why: Mapping[str, str]
    seen: Seen
    source: Source


def calibrate(checkpoint: Checkpoint, source: Source, progress: Progress = silent) -> Calibration:
    """Collect the weighting of every weight whose inputs the data show."""
    dense = {name: checkpoint.tensor(name) for name in names_of(checkpoint)}
    seen = source.seen(dense)
    found: dict[str, tuple[int, Weighting]] = {}
    weights = {weight.name: weight for weight in checkpoint.weights if len(weight.names) == 1}
    stacks = [stack for stack in checkpoint.stacks if stack.prefix in seen.stacks]
    for done, stack in enumerate(stacks):
        progress("calibrate", done, len(stacks), stack.prefix)
        inputs = seen.stacks[stack.prefix]
        for layer in layers_of(stack):
            runs = list(run_layer(layer.module(dense), inputs))
            found.update(_of_layer(layer, dense, runs))
            inputs = [run.outputs for run in runs]
    for path, batches in seen.linears.items():
        if (weight := weights.get(f"{path}.weight")) is not None:
            found[weight.name] = _of_linear(weight, batches)
    for path, counts in seen.embeddings.items():
        if (weight := weights.get(f"{path}.weight")) is not None:
            found[weight.name] = _of_embedding(weight, counts)
    progress("calibrate", len(stacks), len(stacks))
    return _sorted_out(checkpoint, found, seen, source)


def names_of(checkpoint: Checkpoint) -> Iterator[str]:
    """All names of all tensors that belong to the model's state dict."""
    tensors: list[Weight | OtherTensor] = [*checkpoint.weights, *checkpoint.others]
    for tensor in tensors:
        yield from (name for name in tensor.names if name in checkpoint.source_paths)


def _of_layer(
    layer: Layer, dense: Mapping[str, Tensor], runs: list[Ran]
) -> Iterator[tuple[str, tuple[int, Weighting]]]:
    """Both matrices of every direction."""
    prefix = layer.stack.prefix
    for direction, names in enumerate(layer.directions):
        rows: list[Tensor] = [torch.zeros(()), torch.zeros(())]
        moments: list[Tensor] = [torch.zeros(()), torch.zeros(())]
        count = 0
        for run in runs:
            batch, hidden = run.inputs, run.hidden[direction]
            for k, found in enumerate(_influences(layer, names, dense, run, direction)):
                rows[k] = rows[k] + batch.flat(found).double().sum(0)
            for k, values in enumerate((batch.values, hidden)):
                wide = batch.flat(values).double()
                moments[k] = moments[k] + wide.mT @ wide
            count += int(batch.real.sum())
        for name, row, moment in zip(
            (names.weight_ih, names.weight_hh), rows, moments, strict=True
        ):
            yield prefix + name, (count, Weighting.damped(row / count, moment / count))


def _influences(
    layer: Layer, names: DirectionNames, dense: Mapping[str, Tensor], run: Ran, direction: int
) -> Rows:
    def tensor(name: str | None) -> Tensor | None:
        return None if name is None else dense[layer.stack.prefix + name].float()

    hidden = run.hidden[direction]
    from_inputs = linear(run.inputs.values, dense[layer.stack.prefix + names.weight_ih].float())
    from_hidden = linear(hidden, dense[layer.stack.prefix + names.weight_hh].float())
    bias_ih, bias_hh = tensor(names.bias_ih), tensor(names.bias_hh)
    if bias_ih is not None and bias_hh is not None:
        from_inputs, from_hidden = from_inputs + bias_ih, from_hidden + bias_hh
    kind = layer.stack.kind
    return influence(kind, from_inputs, from_hidden, hidden, run.inputs.real, direction == 1)


def _of_linear(weight: Weight, batches: list[Tensor]) -> tuple[int, Weighting]:
    moment, count = torch.zeros(()), 0
    for batch in batches:
        wide = batch.double()
        moment, count = moment + wide.mT @ wide, count + len(wide)
    return count, Weighting.damped(torch.ones(weight.shape[0]), moment / count)


def _of_embedding(weight: Weight, counts: Tensor) -> tuple[int, Weighting]:
    """A row counts as often as it is looked up; the values in it count alike."""
    total = int(counts.sum())
    eye = torch.eye(weight.shape[1], dtype=torch.float64)
    return total, Weighting.damped(counts / total, eye)


def _sorted_out(
    checkpoint: Checkpoint, found: dict[str, tuple[int, Weighting]], seen: Seen, source: Source
) -> Calibration:
    weightings, why = {}, {}
    for weight in checkpoint.weights:
        if weight.name not in found:
            tied = len(weight.names) > 1
            why[weight.name] = "is tied" if tied else "has inputs that the data do not show"
            continue
        count, weighting = found[weight.name]
        least = LEAST_POSITIONS * weight.shape[1]
        if count < least:
            why[weight.name] = f"saw {count:,} inputs, and {least:,} are the least"
        else:
            weightings[weight.name] = weighting
    return Calibration(weightings, why, seen, source)
