"""Turns a `CompressedModel` into the `nn.Module` that fine-tuning trains, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import exp, log, prod

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ttcompress.artifact import CompressedModel
from ttcompress.errors import TrainingError
from ttcompress.layers.matrices import Matrix, TrainWeight, matrix_of
from ttcompress.layers.swap import load_into, replace_layer, set_module
from ttcompress.stores import Store
from ttcompress.stores.coded import Coded
from ttcompress.training.coded import CodedView, RateControl
from ttcompress.trains.stored import StoredWeight

REFRESH = 8
"""Steps between two fits of the scales: cores change little in one step, and fits are expensive."""


_TRIALS = 8

_SLACK = 0.01
"""How much less than they may trained weights take: it cannot be hit exactly."""

_UNUSED = 0.03
"""How much less than they may weights take that stay as they were trained.

Other steps round everything anew: at factor 64 one percent of the step cost charlm .024 bits.
"""


class StraightThrough(nn.Module):
    """Uses the values that the store would keep, and passes the gradient back unchanged.

    Bengio, Leonard and Courville (2013), "Estimating or propagating gradients through stochastic
    neurons". Scales are refitted every `REFRESH` steps of training.
    """

    def __init__(self, store: Store, values: Tensor) -> None:
        super().__init__()
        self.store = store
        self._fitted = tuple(fitted := store.fit(values.detach()))
        for name, tensor in fitted.items():
            self.register_buffer(name, tensor)
        self.calls = nn.Buffer(torch.zeros((), dtype=torch.int64))

    def forward(self, values: Tensor) -> Tensor:
        """The values as stored."""
        if self.training:
            if self.calls % REFRESH == 0:
                for name, tensor in self.store.fit(values.detach()).items():
                    self.get_buffer(name).copy_(tensor)
            self.calls.add_(1)
        fitted = {name: getattr(self, name) for name in self._fitted}
        return values + (self.store.snap(values.detach(), fitted) - values).detach()


@dataclass(frozen=True, eq=False)
class StudentTensor:
    """One stored tensor, a core or a dense weight, in its place in the student.

    `view` shows it to the layer as it will be stored, if it is entropy-coded.
    """

    owner: nn.Module
    name: str
    store: Store
    view: CodedView | None = None

    @property
    def values(self) -> Tensor:
        """The trained numbers, before any rounding."""
        if parametrize.is_parametrized(self.owner, self.name):
            original: Tensor = getattr(self.owner.parametrizations, self.name).original
            return original
        held: Tensor = getattr(self.owner, self.name)
        return held


def make_student(compressed: CompressedModel, module: nn.Module) -> nn.Module:
    """Put a compressed model into its module for training, its trains with balanced cores.

    Few-bit weights that stayed dense need layers that compute with rounded parameters, so the fused
    layers of torch that hold one are replaced too. What is entropy-coded is seen rounded at once.
    """
    student = load_into(module, compressed)
    for stored in compressed.weights:
        path = stored.weight.name.rpartition(".")[0]
        layer = student.get_submodule(path)
        if not stored.layout.decomposes and isinstance(layer, nn.RNNBase) and path:
            set_module(student, path, replace_layer(layer, {}))
    for stored in compressed.weights:
        matrix = _find_matrix(student, stored)
        if _is_coded(stored):
            _see_coded(matrix, stored)
        elif isinstance(matrix, TrainWeight):
            _balance(matrix)
    return student


def _see_coded(matrix: Matrix, stored: StoredWeight) -> None:
    """Let a layer see entropy-coded cores through views, and train them in the views' units."""
    tied = len(stored.weight.names) > 1
    views = [CodedView(part, in_place=tied) for part in stored.parts]
    with torch.no_grad():
        for view, (owner, name) in zip(views, matrix.places, strict=True):
            held: Tensor = getattr(owner, name)
            held.copy_(view.in_units(held))
    matrix.set_views(views)


def rate_control(student: nn.Module, compressed: CompressedModel) -> RateControl | None:
    """The price of the bits of what is entropy-coded: it may take what it takes now."""
    coded = [stored for stored in compressed.weights if _is_coded(stored)]
    parts = [part for stored in coded for part in parts_of(student, stored)]
    views = [(part.view, part.values) for part in parts if part.view is not None]
    if not views:
        return None
    return RateControl(views, sum(view.look(values) for view, values in views))


def _is_coded(stored: StoredWeight) -> bool:
    return isinstance(stored.parts[0].store, Coded)


def parts_of(student: nn.Module, stored: StoredWeight) -> tuple[StudentTensor, ...]:
    """Where the student holds each part of a stored weight."""
    matrix, store = _find_matrix(student, stored), stored.parts[0].store
    views: list[CodedView | None] = [v if isinstance(v, CodedView) else None for v in matrix.views]
    places = matrix.places
    pairs = zip(places, views or [None] * len(places), strict=True)
    return tuple(StudentTensor(owner, name, store, view) for (owner, name), view in pairs)


def _find_matrix(student: nn.Module, stored: StoredWeight) -> Matrix:
    owner, _, leaf = stored.weight.name.rpartition(".")
    return matrix_of(student.get_submodule(owner), leaf)


def apply_rounding(student: nn.Module, compressed: CompressedModel) -> None:
    """Make the forward pass use the rounded values of every coarse store from now on.

    Entropy-coded weights do so already. For other stores the values are trained unrounded and
    rounded at the end, which loses nothing.
    """
    for stored in compressed.weights:
        store = stored.parts[0].store
        if not store.coarse or _is_coded(stored):
            continue
        views = [StraightThrough(store, part.values) for part in parts_of(student, stored)]
        _find_matrix(student, stored).set_views(views)


def snapshot(student: nn.Module, compressed: CompressedModel) -> CompressedModel:
    """The trained model as it would be stored, what is entropy-coded in as many bytes as before.

    The errors in the report are still those of `compressed`.
    """
    with torch.no_grad():
        weights = _within(student, compressed)
        places = dict(student.state_dict())
        kept = {
            name: places[name].to(tensor.dtype).cpu().clone() if name in places else tensor
            for name, tensor in compressed.kept.items()
        }
    return replace(compressed.with_weights(weights), kept=kept)


def _within(student: nn.Module, compressed: CompressedModel) -> list[StoredWeight]:
    """The trained weights in no more bytes than those they started from.

    They stay as they were trained if they take up to 3 % less. Otherwise all steps of what is
    entropy-coded are made coarser or finer together, until they take up to 1 % less: how much is
    found by the secant method, since bytes are nearly linear in the logarithm of a step.
    """
    allowed = sum(one.bytes for one in compressed.weights if _is_coded(one))
    coarser, tried, best = 1.0, list[tuple[float, float]](), list[StoredWeight]()
    for _ in range(_TRIALS):
        weights = [_stored(student, stored, coarser) for stored in compressed.weights]
        coded = [one for one in weights if _is_coded(one)]
        if not coded:
            return weights
        used = sum(part.about_bytes for one in coded for part in one.parts) / allowed
        if used <= 1.0:  # by the estimate: now they are coded
            used = sum(one.bytes for one in coded) / allowed
        if used <= 1.0:
            best = weights
        if 1 - (_SLACK if tried else _UNUSED) <= used <= 1.0:
            break
        tried.append((log(coarser), used))
        values = sum(prod(part.shape) for one in coded for part in one.parts)
        coarser = exp(_next_place(tried, -values / (8 * log(2) * allowed)))
    if not best:
        raise TrainingError(
            f"finetune: the trained weights take {used:.3f} times the bytes they may, however "
            "coarse they are. Allow more bytes."
        )
    return best


def _next_place(tried: Sequence[tuple[float, float]], slope: float) -> float:
    """Where the last points (place, used) say that what is used is just within what is allowed.

    With one point `slope` is how fast it changes: a bit of each value in every octave.
    """
    place, used = tried[-1]
    if len(tried) > 1 and tried[-2][1] != used:
        slope = (used - tried[-2][1]) / (place - tried[-2][0])
    return place + (1 - _SLACK / 2 - used) / slope


def _stored(student: nn.Module, stored: StoredWeight, coarser: float) -> StoredWeight:
    """One trained weight as it would be stored."""
    parts = (
        part.store.encode(part.values.detach().cpu().float())
        if part.view is None
        else part.view.encode(part.values, coarser)
        for part in parts_of(student, stored)
    )
    return replace(stored, parts=tuple(parts))


def _balance(weight: TrainWeight) -> None:
    """Give all cores of a train the same norm, without changing their product.

    TT-SVD leaves the whole norm in the last core, so that one learning rate would mean something
    different for every core.
    """
    with torch.no_grad():
        norms = torch.stack([core.norm() for core in weight.cores])
        if not bool((norms > 0).all()):
            return
        common = norms.log().mean().exp()
        for core, norm in zip(weight.cores, norms, strict=True):
            core.mul_(common / norm)
