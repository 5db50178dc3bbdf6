"""A compressed model and its calibration enter; the model fitted layer by layer leaves.

From the first layer to the last, each stored weight is fitted anew by linear regression: to give,
on the inputs that the already compressed layers really produce, what the dense weight gives on the
inputs of the dense model; the bias takes up the mean. A recurrent layer feeds on itself, so it is
run and fitted in turn, and what came nearest to the dense outputs is kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ttcompress.artifact import CompressedModel
from ttcompress.calibration.collect import Calibration, names_of
from ttcompress.calibration.layers import Layer, Ran, layers_of, run_layer
from ttcompress.calibration.sources import Sequences
from ttcompress.checkpoint import Checkpoint
from ttcompress.compress import StoredWeight, relative_errors, store_weight
from ttcompress.progress import Progress, silent
from ttcompress.trains.weighting import Weighting
from ttcompress.weights import RecurrentStack

ROUNDS = 2
"""Of running a recurrent layer and fitting it to what it then saw; more gave nothing."""

RIDGE = 0.1
"""Pulls the regression towards the dense weight, as a fraction of the inputs' mean variance."""


@dataclass(frozen=True, eq=False)
class _Moments:
    """Of pairs of inputs (dense model's x, compressed model's y): means, E yy', E xy', centred."""

    mean: Tensor
    dense_mean: Tensor
    own: Tensor
    cross: Tensor


class _Fitting:
    """The tensors of the model as they stand, some fitted already."""

    def __init__(
        self, checkpoint: Checkpoint, compressed: CompressedModel, calibration: Calibration
    ) -> None:
        self.checkpoint, self.calibration = checkpoint, calibration
        self.dense = {name: checkpoint.tensor(name) for name in names_of(checkpoint)}
        self.now = dict(compressed.state_dict())
        self.stored = {one.weight.name: one for one in compressed.weights}
        self.changed: set[str] = set()

    def fit(self, name: str, bias: str | None, pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Fit one stored weight to pairs of (positions, columns): the dense model's, and its own.

        A weight that is kept, or that the calibration has no weighting for, stays as it is.
        """
        weighting, stored = self.calibration.weightings.get(name), self.stored.get(name)
        if weighting is None or stored is None:
            return
        found = _moments(pairs, centred=bias is not None)
        ridge = RIDGE * found.own.diagonal().mean() * torch.eye(len(found.own)).double()
        own, matrix = found.own + ridge, self.dense[name].double()
        target = matrix @ torch.linalg.solve(own, (found.cross + ridge).mT).mT
        fitted = store_weight(target, stored, Weighting(weighting.rows, own))
        self.stored[name], self.now[name] = fitted, fitted.dense()
        self.changed.add(name)
        if bias is not None:
            moved = matrix @ found.dense_mean - fitted.dense(torch.float64) @ found.mean
            self.now[bias] = (self.dense[bias].double() + moved).to(self.dense[bias].dtype)
            self.changed.add(bias)

    def snapshot(self) -> tuple[dict[str, StoredWeight], dict[str, Tensor], set[str]]:
        """What `restore` goes back to."""
        return dict(self.stored), dict(self.now), set(self.changed)

    def restore(self, saved: tuple[dict[str, StoredWeight], dict[str, Tensor], set[str]]) -> None:
        """Go back to a snapshot."""
        self.stored, self.now, self.changed = dict(saved[0]), dict(saved[1]), set(saved[2])


def refit(
    checkpoint: Checkpoint,
    compressed: CompressedModel,
    calibration: Calibration,
    progress: Progress = silent,
) -> CompressedModel:
    """Fit every stored weight that the data show to the layers before it; biases too.

    Layouts, ranks and stores stay, so bytes do. On the calibration data no layer's outputs get
    further from the dense ones. The report has the errors of what is then stored.
    """
    fitting, stacks = _Fitting(checkpoint, compressed, calibration), _by_prefix(checkpoint.stacks)
    places = [*calibration.seen.stacks, *calibration.seen.linears]
    mine = calibration.source.seen(fitting.now)
    for done, place in enumerate(places):
        progress("refit", done, len(places), place)
        if place in stacks:
            _fit_stack(fitting, stacks[place], mine.stacks[place])
            if done + 1 < len(places):
                mine = calibration.source.seen(fitting.now)
            continue
        bias = f"{place}.bias"
        pairs = zip(calibration.seen.linears[place], mine.linears[place], strict=True)
        fitting.fit(f"{place}.weight", bias if bias in fitting.now else None, pairs)
    progress("refit", len(places), len(places))
    return _reported(compressed, fitting)


def _by_prefix(stacks: Iterable[RecurrentStack]) -> dict[str, RecurrentStack]:
    return {stack.prefix: stack for stack in stacks}


def _fit_stack(fitting: _Fitting, stack: RecurrentStack, mine: list[Sequences]) -> None:
    dense = fitting.calibration.seen.stacks[stack.prefix]
    for layer in layers_of(stack):
        wanted = list(run_layer(layer.module(fitting.dense), dense))
        runs = _fit_layer(fitting, layer, wanted, mine)
        dense, mine = [run.outputs for run in wanted], [run.outputs for run in runs]


def _fit_layer(
    fitting: _Fitting, layer: Layer, wanted: list[Ran], mine: list[Sequences]
) -> list[Ran]:
    """Run and fit in turn; the layer is left as it came nearest, and its run is returned."""
    best = runs = list(run_layer(layer.module(fitting.now), mine))
    saved, least = fitting.snapshot(), _distance(wanted, runs)
    for _ in range(ROUNDS):
        for direction, names in enumerate(layer.directions):
            prefix = layer.stack.prefix
            bias_ih, bias_hh = (
                None if bias is None else prefix + bias for bias in (names.bias_ih, names.bias_hh)
            )
            fitting.fit(prefix + names.weight_ih, bias_ih, _inputs(wanted, runs))
            fitting.fit(prefix + names.weight_hh, bias_hh, _hidden(wanted, runs, direction))
        runs = list(run_layer(layer.module(fitting.now), mine))
        if (found := _distance(wanted, runs)) < least:
            best, saved, least = runs, fitting.snapshot(), found
    fitting.restore(saved)
    return best


def _inputs(wanted: list[Ran], runs: list[Ran]) -> Iterable[tuple[Tensor, Tensor]]:
    for one, two in zip(wanted, runs, strict=True):
        yield one.inputs.flat(one.inputs.values), two.inputs.flat(two.inputs.values)


def _hidden(wanted: list[Ran], runs: list[Ran], direction: int) -> Iterable[tuple[Tensor, Tensor]]:
    for one, two in zip(wanted, runs, strict=True):
        yield one.inputs.flat(one.hidden[direction]), two.inputs.flat(two.hidden[direction])


def _distance(wanted: list[Ran], runs: list[Ran]) -> float:
    """Squared, of the outputs over all real positions (padding is zero in both)."""
    return sum(
        float((one.outputs.values.double() - two.outputs.values).square().sum())
        for one, two in zip(wanted, runs, strict=True)
    )


def _moments(pairs: Iterable[tuple[Tensor, Tensor]], centred: bool) -> _Moments:
    count = 0
    sums: list[Tensor] = [torch.zeros(())] * 4
    for dense, mine in pairs:
        x, y = dense.double(), mine.double()
        count += len(x)
        parts = (y.sum(0), x.sum(0), y.mT @ y, x.mT @ y)
        sums = [total + part for total, part in zip(sums, parts, strict=True)]
    mean, dense_mean, own, cross = (total / count for total in sums)
    if not centred:
        return _Moments(mean, dense_mean, own, cross)
    own, cross = own - torch.outer(mean, mean), cross - torch.outer(dense_mean, mean)
    return _Moments(mean, dense_mean, own, cross)


def _reported(compressed: CompressedModel, fitting: _Fitting) -> CompressedModel:
    """The fitted model, its errors measured against the source's weights."""
    entries = []
    for entry in compressed.report.weights:
        if entry.name in fitting.changed:
            stored = fitting.stored[entry.name]
            matrix, kept = fitting.dense[entry.name], stored.dense(torch.float64)
            error, gates = relative_errors(matrix, kept, stored.weight)
            entry = replace(entry, relative_error=error, gate_errors=gates)
        entries.append(entry)
    tensors = {
        name: fitting.now[name] if name in fitting.changed else tensor
        for name, tensor in compressed.kept.items()
    }
    unweighted = {n: why for n, why in fitting.calibration.why.items() if n in fitting.stored}
    shown = {
        "positions": fitting.calibration.seen.positions,
        "refitted": sorted(fitting.changed & fitting.stored.keys()),
        "biases": sorted(fitting.changed - fitting.stored.keys()),
        "unweighted": unweighted,
    }
    lines = tuple(f"{name}: not fitted to its inputs, it {why}" for name, why in unweighted.items())
    notes = (*compressed.report.notes, *lines)
    report = replace(compressed.report, weights=tuple(entries), notes=notes, calibration=shown)
    weights = tuple(fitting.stored[one.weight.name] for one in compressed.weights)
    return replace(compressed, weights=weights, kept=tensors, report=report)
