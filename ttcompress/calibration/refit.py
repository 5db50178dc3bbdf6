"""Refits the stored weights, layer by layer, to what the layers before them really produce.

From the first layer to the last, linear regression fits each stored weight V to give, on the inputs
that the layers already compressed really produce (y), what the dense weight W gives on the inputs
of the dense model (x); the bias absorbs the mean:

    min over V of E |W x - V y|^2 + ridge |W - V|^2   =>   V = W (E xy' + ridge) (E yy' + ridge)^-1

A recurrent layer feeds back into itself, so it is run and fitted in turn, and the version nearest
to the dense outputs is kept. Regression needs only moments, so both models run over the data again
for each layer, and no inputs are stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import inf

import torch
from torch import Tensor

from ttcompress.artifact import CompressedModel
from ttcompress.calibration.layerwise import LayerPass
from ttcompress.calibration.moments import Calibration
from ttcompress.calibration.sources import Activations
from ttcompress.checkpoint import Checkpoint
from ttcompress.layers.stacks import Layer, layers_of
from ttcompress.model.weights import RecurrentStack
from ttcompress.stores.coded import CODED
from ttcompress.system.progress import Progress, silent
from ttcompress.trains.stored import StoredWeight, keep_zeros, measure_errors, store_alike

ROUNDS = 2
"""Times a recurrent layer is run and fitted to the inputs it then had; more gained nothing."""

RIDGE = 0.1
"""Pulls the regression towards the dense weight, as a fraction of the inputs' mean variance."""


def refit(
    checkpoint: Checkpoint,
    compressed: CompressedModel,
    calibration: Calibration,
    progress: Progress = silent,
) -> CompressedModel:
    """Fit every stored weight that the data reach, and its bias, to the layers before it.

    Layouts, ranks and stores stay, so the size does too. On the calibration data no layer's outputs
    move further from the dense ones. The report has the errors of what is stored afterwards.
    """
    model = _Model(
        calibration,
        dense=checkpoint.state_dict(),
        values=dict(compressed.state_dict()),
        stored={one.weight.name: one for one in compressed.weights},
    )
    stacks = {stack.prefix: stack for stack in checkpoint.stacks}
    places = [*calibration.stacks, *calibration.linears]
    for done, place in enumerate(places):
        progress("refit", done, len(places), place)
        if done < len(calibration.stacks):
            for index, layer in enumerate(layers_of(stacks[place])):
                _fit_layer(model, layer, index)
        else:
            _fit_linear(model, place)
    progress("refit", len(places), len(places))
    return _with_report(compressed, model)


class _PairMoments:
    """Sums over pairs of inputs (dense model's x, compressed model's y), in float64."""

    def __init__(self) -> None:
        self._count = 0
        self._sums: list[Tensor] = [torch.zeros(())] * 4

    def add(self, dense: Tensor, mine: Tensor) -> None:  # (positions, columns) both
        x, y = dense.double(), mine.double()
        self._count += len(x)
        parts = (y.sum(0), x.sum(0), y.mT @ y, x.mT @ y)
        self._sums = [total + part for total, part in zip(self._sums, parts, strict=True)]

    def means(self, centred: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """E y, E x, E yy' and E xy', the last two without the means where they are centred."""
        mean, dense_mean, own, cross = (total / self._count for total in self._sums)
        if not centred:
            return mean, dense_mean, own, cross
        own, cross = own - torch.outer(mean, mean), cross - torch.outer(dense_mean, mean)
        return mean, dense_mean, own, cross


@dataclass(eq=False)
class _Model:
    """The compressed model in its present state; `changed` names the tensors fitted so far.

    A fit replaces the mappings and never changes the old ones.
    """

    calibration: Calibration
    dense: Mapping[str, Tensor]
    values: Mapping[str, Tensor]
    stored: Mapping[str, StoredWeight]
    changed: frozenset[str] = frozenset()

    def can_fit(self, name: str) -> bool:
        """Whether a weight is stored and the data reach it; others stay as they are.

        What is entropy-coded stays too: fitted, it took up to 4 % more bytes, and lost as much at
        equal bytes.
        """
        return (
            name in self.stored
            and self.stored[name].parts[0].store.name != CODED.name
            and len(self.stored[name].weight.names) == 1  # the other layer has other inputs
            and self.calibration.inputs[name] > 0
        )

    def fit(self, name: str, bias: str | None, moments: _PairMoments) -> None:
        """Fit one stored weight to the moments of its inputs."""
        mean, dense_mean, own, cross = moments.means(centred=bias is not None)
        prior, count = self.calibration.priors[name], self.calibration.inputs[name]
        own, cross = prior.shrink(own, count), prior.shrink(cross, count)
        ridge = RIDGE * own.diagonal().mean() * torch.eye(len(own)).double()
        own, matrix = own + ridge, self.dense[name].double()
        # V = W (E xy' + ridge) (E yy' + ridge)^-1; `own` is symmetric, so solve the transpose
        target = matrix @ torch.linalg.solve(own, (cross + ridge).mT).mT
        target = keep_zeros(target, matrix, self.stored[name].layout)
        weighting = replace(self.calibration.weightings[name], moment=own)
        fitted = store_alike(target, self.stored[name], weighting)
        self.stored = {**self.stored, name: fitted}
        self.values = {**self.values, name: fitted.dense()}
        self.changed = self.changed | {name}
        if bias is not None:
            moved = matrix @ dense_mean - fitted.dense(torch.float64) @ mean
            moved = prior.share(count) * moved  # the mean of few errors is mostly chance
            shifted = (self.dense[bias].double() + moved).to(self.dense[bias].dtype)
            self.values = {**self.values, bias: shifted}
            self.changed = self.changed | {bias}

    def run(self) -> Iterator[tuple[Activations, Activations]]:
        """One pass over the data, of the dense model and of this one."""
        source = self.calibration.source
        return zip(source.run(self.dense), source.run(self.values), strict=True)

    def passes(self, stack: RecurrentStack, index: int) -> Iterator[tuple[LayerPass, LayerPass]]:
        """The same for one layer of a stack."""
        for activations in self.run():
            calls = (one.stacks.get(stack.prefix, []) for one in activations)
            yield from ((dense[index], mine[index]) for dense, mine in zip(*calls, strict=True))


def _fit_layer(model: _Model, layer: Layer, index: int) -> None:
    """Run and fit one layer of a stack in turn; keep the version nearest to the dense outputs."""
    prefix = layer.stack.prefix
    weights: list[tuple[str, str | None, int | None]] = []  # name, bias, direction or layer's input
    for direction, names in enumerate(layer.directions):
        bias_ih, bias_hh = (b and prefix + b for b in (names.bias_ih, names.bias_hh))
        weights.append((prefix + names.weight_ih, bias_ih, None))
        weights.append((prefix + names.weight_hh, bias_hh, direction))
    weights = [weight for weight in weights if model.can_fit(weight[0])]
    if not weights:
        return

    def inputs(one: LayerPass, direction: int | None) -> Tensor:  # (positions, columns)
        return one.flat(one.inputs if direction is None else one.hidden(direction))

    best, least = (model.stored, model.values, model.changed), inf
    for left in reversed(range(ROUNDS + 1)):
        moments = {place: _PairMoments() for _, _, place in weights if left}
        distance = 0.0
        for dense, mine in model.passes(layer.stack, index):  # padding is zero in both
            distance += float((dense.outputs.double() - mine.outputs).square().sum())
            for place, sums in moments.items():
                sums.add(inputs(dense, place), inputs(mine, place))
        if distance < least:
            best, least = (model.stored, model.values, model.changed), distance
        if left:
            for name, bias, place in weights:
                model.fit(name, bias, moments[place])
    model.stored, model.values, model.changed = best


def _fit_linear(model: _Model, path: str) -> None:
    name, bias, moments = f"{path}.weight", f"{path}.bias", _PairMoments()
    if not model.can_fit(name):
        return
    for activations in model.run():
        for dense, mine in zip(*(one.linears.get(path, []) for one in activations), strict=True):
            moments.add(dense, mine)
    model.fit(name, bias if bias in model.values else None, moments)


def _with_report(compressed: CompressedModel, model: _Model) -> CompressedModel:
    """The fitted model, with its errors measured against the source's weights."""
    compressed = compressed.with_weights(model.stored[name] for name in model.stored)
    entries = []
    for entry in compressed.report.weights:
        if entry.name in model.changed:
            stored = model.stored[entry.name]
            errors = measure_errors(model.dense[entry.name], stored.blocks(), stored.weight)
            entry = replace(entry, **vars(errors))
        entries.append(entry)
    report = replace(
        compressed.report,
        weights=tuple(entries),
        calibration={
            "positions": model.calibration.positions,
            "refitted": sorted(model.changed & model.stored.keys()),
            "biases": sorted(model.changed - model.stored.keys()),
            "shrunk": {n: why for n, why in model.calibration.notes.items() if n in model.stored},
        },
    )
    return replace(
        compressed,
        kept={n: model.values[n] if n in model.changed else t for n, t in compressed.kept.items()},
        report=report,
    )
