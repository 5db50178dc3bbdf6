"""A compressed model and its calibration enter; the model fitted layer by layer leaves.

From the first layer to the last, each stored weight is fitted anew by linear regression: to give,
on the inputs that the already compressed layers really produce, what the dense weight gives on the
inputs of the dense model; the bias takes up the mean. A recurrent layer feeds on itself, so it is
run and fitted in turn, and what came nearest to the dense outputs is kept. Regression needs moments
only, so both models go through the data again for each layer, and no inputs are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import inf

import torch
from torch import Tensor

from ttcompress.artifact import CompressedModel
from ttcompress.calibration.layered import Ran
from ttcompress.calibration.moments import Calibration, names_of
from ttcompress.calibration.sources import Seen
from ttcompress.checkpoint import Checkpoint
from ttcompress.layers.stacks import Layer, layers_of
from ttcompress.model.weights import RecurrentStack
from ttcompress.system.progress import Progress, silent
from ttcompress.trains.stored import StoredWeight, relative_errors, store_alike
from ttcompress.trains.weighting import Weighting

ROUNDS = 2
"""Of running a recurrent layer and fitting it to what it then saw; more gave nothing."""

RIDGE = 0.1
"""Pulls the regression towards the dense weight, as a fraction of the inputs' mean variance."""


class _Moments:
    """Sums over pairs of inputs (dense model's x, compressed model's y), in float64."""

    def __init__(self) -> None:
        self._count = 0
        self._sums: list[Tensor] = [torch.zeros(())] * 4

    def add(self, dense: Tensor, mine: Tensor) -> None:  # (positions, columns) both
        x, y = dense.double(), mine.double()
        self._count += len(x)
        parts = (y.sum(0), x.sum(0), y.mT @ y, x.mT @ y)
        self._sums = [total + part for total, part in zip(self._sums, parts, strict=True)]

    def of(self, centred: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """E y, E x, E yy' and E xy', the last two without the means where they are centred."""
        mean, dense_mean, own, cross = (total / self._count for total in self._sums)
        if not centred:
            return mean, dense_mean, own, cross
        own, cross = own - torch.outer(mean, mean), cross - torch.outer(dense_mean, mean)
        return mean, dense_mean, own, cross


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

    def fits(self, name: str) -> bool:
        """Whether a weight is stored and the data show its inputs; others stay as they are."""
        return name in self.stored and name in self.calibration.weightings

    def fit(self, name: str, bias: str | None, moments: _Moments) -> None:
        """Fit one stored weight to the moments of its inputs."""
        rows, stored = self.calibration.weightings[name].rows, self.stored[name]
        mean, dense_mean, own, cross = moments.of(centred=bias is not None)
        ridge = RIDGE * own.diagonal().mean() * torch.eye(len(own)).double()
        own, matrix = own + ridge, self.dense[name].double()
        target = matrix @ torch.linalg.solve(own, (cross + ridge).mT).mT
        fitted = store_alike(target, stored, Weighting(rows, own))
        self.stored[name], self.now[name] = fitted, fitted.dense()
        self.changed.add(name)
        if bias is not None:
            moved = matrix @ dense_mean - fitted.dense(torch.float64) @ mean
            self.now[bias] = (self.dense[bias].double() + moved).to(self.dense[bias].dtype)
            self.changed.add(bias)

    def seen(self) -> Iterator[tuple[Seen, Seen]]:
        """One pass: what the layers see in the dense model, and in the model as it stands."""
        source = self.calibration.source
        return zip(source.seen(self.dense), source.seen(self.now), strict=True)

    def runs(self, stack: RecurrentStack, index: int) -> Iterator[tuple[Ran, Ran]]:
        """One pass: the runs of one layer of a stack."""
        for seen in self.seen():
            calls = (one.stacks.get(stack.prefix, []) for one in seen)
            yield from ((dense[index], mine[index]) for dense, mine in zip(*calls, strict=True))

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
    fitting = _Fitting(checkpoint, compressed, calibration)
    stacks = {stack.prefix: stack for stack in checkpoint.stacks}
    places = [*calibration.stacks, *calibration.linears]
    for done, place in enumerate(places):
        progress("refit", done, len(places), place)
        if done < len(calibration.stacks):
            for index, layer in enumerate(layers_of(stacks[place])):
                _fit_layer(fitting, layer, index)
        else:
            _fit_linear(fitting, place)
    progress("refit", len(places), len(places))
    return _reported(compressed, fitting)


def _fit_layer(fitting: _Fitting, layer: Layer, index: int) -> None:
    """Run and fit the layer of that index in its stack in turn; it is left as it came nearest."""
    places = [place for place in _places_in(layer) if fitting.fits(place.name)]
    if not places:
        return
    saved, least = fitting.snapshot(), inf
    for left in reversed(range(ROUNDS + 1)):
        moments = {place.sees: _Moments() for place in places if left}
        if (distance := _compared(fitting.runs(layer.stack, index), moments)) < least:
            saved, least = fitting.snapshot(), distance
        if left:
            for place in places:
                fitting.fit(place.name, place.bias, moments[place.sees])
    fitting.restore(saved)


@dataclass(frozen=True)
class _Place:
    """A weight of a layer and its bias. `sees` is a direction, or None for the layer's inputs."""

    name: str
    bias: str | None
    sees: int | None


def _places_in(layer: Layer) -> Iterator[_Place]:
    prefix = layer.stack.prefix
    for direction, names in enumerate(layer.directions):
        bias_ih, bias_hh = (
            None if bias is None else prefix + bias for bias in (names.bias_ih, names.bias_hh)
        )
        yield _Place(prefix + names.weight_ih, bias_ih, None)
        yield _Place(prefix + names.weight_hh, bias_hh, direction)


def _compared(pairs: Iterable[tuple[Ran, Ran]], moments: Mapping[int | None, _Moments]) -> float:
    """Add runs of the dense layer and of its own to moments; the squared distance of their outputs.

    Padding is zero in both.
    """
    distance = 0.0
    for dense, mine in pairs:
        distance += float((dense.outputs.double() - mine.outputs).square().sum())
        for sees, found in moments.items():
            found.add(_seen(dense, sees), _seen(mine, sees))
    return distance


def _seen(ran: Ran, sees: int | None) -> Tensor:  # (positions, columns)
    return ran.flat(ran.inputs if sees is None else ran.hidden(sees))


def _fit_linear(fitting: _Fitting, path: str) -> None:
    name, bias, moments = f"{path}.weight", f"{path}.bias", _Moments()
    if not fitting.fits(name):
        return
    for seen in fitting.seen():
        for dense, mine in zip(*(one.linears.get(path, []) for one in seen), strict=True):
            moments.add(dense, mine)
    fitting.fit(name, bias if bias in fitting.now else None, moments)


def _reported(compressed: CompressedModel, fitting: _Fitting) -> CompressedModel:
    """The fitted model, its errors measured against the source's weights."""
    entries = []
    for entry in compressed.report.weights:
        if entry.name in fitting.changed:
            stored = fitting.stored[entry.name]
            matrix = fitting.dense[entry.name]
            error, gates = relative_errors(matrix, stored.blocks(), stored.weight)
            entry = replace(entry, relative_error=error, gate_errors=gates)
        entries.append(entry)
    tensors = {
        name: fitting.now[name] if name in fitting.changed else tensor
        for name, tensor in compressed.kept.items()
    }
    unweighted = {n: why for n, why in fitting.calibration.why.items() if n in fitting.stored}
    shown = {
        "positions": fitting.calibration.positions,
        "refitted": sorted(fitting.changed & fitting.stored.keys()),
        "biases": sorted(fitting.changed - fitting.stored.keys()),
        "unweighted": unweighted,
    }
    lines = tuple(f"{name}: not fitted to its inputs, it {why}" for name, why in unweighted.items())
    notes = (*compressed.report.notes, *lines)
    report = replace(compressed.report, weights=tuple(entries), notes=notes, calibration=shown)
    weights = tuple(fitting.stored[one.weight.name] for one in compressed.weights)
    return replace(compressed, weights=weights, kept=tensors, report=report)
