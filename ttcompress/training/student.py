"""Turns a `CompressedModel` into the `nn.Module` that fine-tuning trains, and back."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ttcompress.artifact import CompressedModel
from ttcompress.layers.matrices import Matrix, TrainWeight, matrix_of
from ttcompress.layers.swap import load_into, replace_layer, set_module
from ttcompress.stores import Encoded, Store
from ttcompress.trains.stored import StoredWeight

REFRESH = 8
"""Steps between two fits of the scales: cores change little in one step, and fits are expensive."""


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
    """One stored tensor, a core or a dense weight, in its place in the student."""

    owner: nn.Module
    name: str
    store: Store

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
    layers of torch that hold one are replaced too.
    """
    student = load_into(module, compressed)
    for stored in compressed.weights:
        path = stored.weight.name.rpartition(".")[0]
        layer = student.get_submodule(path)
        if not stored.layout.decomposes and isinstance(layer, nn.RNNBase) and path:
            set_module(student, path, replace_layer(layer, {}))
    for module in student.modules():
        if isinstance(module, TrainWeight):
            _balance(module)
    return student


def parts_of(student: nn.Module, stored: StoredWeight) -> tuple[StudentTensor, ...]:
    """Where the student holds each part of a stored weight."""
    places = _find_matrix(student, stored).places
    return tuple(StudentTensor(*place, stored.parts[0].store) for place in places)


def _find_matrix(student: nn.Module, stored: StoredWeight) -> Matrix:
    owner, _, leaf = stored.weight.name.rpartition(".")
    return matrix_of(student.get_submodule(owner), leaf)


def apply_rounding(student: nn.Module, compressed: CompressedModel) -> None:
    """Make the forward pass use the rounded values of every coarse store from now on.

    For other stores the values are trained unrounded and rounded at the end, which loses nothing.
    """
    for stored in compressed.weights:
        store = stored.parts[0].store
        if not store.coarse:
            continue
        views = [StraightThrough(store, part.values) for part in parts_of(student, stored)]
        _find_matrix(student, stored).set_views(views)


def snapshot(student: nn.Module, compressed: CompressedModel) -> CompressedModel:
    """The trained model as it would be stored; the report's errors are still those of `compressed`."""
    with torch.no_grad():
        weights = [
            replace(stored, parts=tuple(map(_encode, parts_of(student, stored))))
            for stored in compressed.weights
        ]
        places = dict(student.state_dict())
        kept = {
            name: places[name].to(tensor.dtype).cpu().clone() if name in places else tensor
            for name, tensor in compressed.kept.items()
        }
    return replace(compressed.with_weights(weights), kept=kept)


def _encode(part: StudentTensor) -> Encoded:
    return part.store.encode(part.values.detach().cpu().float())


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
