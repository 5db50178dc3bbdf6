"""The module that fine-tuning trains: made from a `CompressedModel`, and turned back into one."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ttcompress.artifact import CompressedModel
from ttcompress.layers.matrices import TrainWeight
from ttcompress.layers.swap import load_into, replace_layer
from ttcompress.stores.rounding import Rounded, fit_scales, round_to, snap
from ttcompress.stores.store import Store
from ttcompress.trains.stored import StoredWeight

REFRESH = 8
"""Steps between two fits of the scales: cores move little in one step, and a fit costs most."""

_PLAIN_BITS = 8
"""From this many bits on, cores are trained in float and rounded at the end: it loses nothing."""


class StraightThrough(nn.Module):
    """Forward sees what the store would keep, backward passes the gradient on unchanged.

    Bengio, Leonard and Courville (2013), "Estimating or propagating gradients through stochastic
    neurons". Scales are fitted anew every `REFRESH` steps of training.
    """

    def __init__(self, store: Store, values: Tensor) -> None:
        super().__init__()
        self.store = store
        scales, factor = fit_scales(values, store)
        self.scales, self.factor = nn.Buffer(scales), nn.Buffer(factor)
        self.calls = nn.Buffer(torch.zeros((), dtype=torch.int64))

    def forward(self, values: Tensor) -> Tensor:
        """The values as stored."""
        if self.training:
            if self.calls % REFRESH == 0:
                scales, factor = fit_scales(values, self.store)
                self.scales.copy_(scales)
                self.factor.copy_(factor)
            self.calls.add_(1)
        return values + (snap(values, self.scales, self.factor, self.store) - values).detach()


@dataclass(frozen=True, eq=False)
class StudentTensor:
    """One stored tensor of the model as the student holds it: a core, or a dense weight."""

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
    """Put a compressed model into its module for training: trains with balanced cores.

    Few-bit weights that stayed dense need layers whose parameters can be seen through a rounding,
    so the fused layers of torch that hold one are replaced too.
    """
    student = load_into(module, compressed)
    for stored in compressed.weights:
        path = stored.weight.name.rpartition(".")[0]
        layer = student.get_submodule(path)
        if stored.layout is None and isinstance(layer, nn.RNNBase) and path:
            parent, _, child = path.rpartition(".")
            setattr(student.get_submodule(parent), child, replace_layer(layer, {}))
    for module in student.modules():
        if isinstance(module, TrainWeight):
            _balance(module)
    return student


def parts_of(student: nn.Module, stored: StoredWeight) -> tuple[StudentTensor, ...]:
    """Where the student holds each part of a stored weight."""
    owner, _, leaf = stored.weight.name.rpartition(".")
    store, held = stored.parts[0].store, _held(student, stored)
    if isinstance(held, TrainWeight):
        return tuple(StudentTensor(held.cores, str(k), store) for k in range(len(held.cores)))
    return (StudentTensor(student.get_submodule(owner), leaf, store),)


def _held(student: nn.Module, stored: StoredWeight) -> TrainWeight | Tensor:
    owner, _, leaf = stored.weight.name.rpartition(".")
    held: TrainWeight | Tensor = getattr(student.get_submodule(owner), leaf)
    return held


def see_the_store(student: nn.Module, compressed: CompressedModel) -> None:
    """From now on the forward pass sees the rounded values of every store with few bits."""
    for stored in compressed.weights:
        store = stored.parts[0].store
        if not store.is_integer or store.bits >= _PLAIN_BITS:
            continue
        parts = parts_of(student, stored)
        views = [StraightThrough(store, part.values) for part in parts]
        if isinstance(weight := _held(student, stored), TrainWeight):
            weight.see_through(views)
        else:
            parametrize.register_parametrization(parts[0].owner, parts[0].name, views[0])


def snapshot(student: nn.Module, compressed: CompressedModel) -> CompressedModel:
    """The trained model as it would be stored; the report is still that of `compressed`."""
    with torch.no_grad():
        weights = tuple(
            replace(stored, parts=tuple(_rounded(part) for part in parts_of(student, stored)))
            for stored in compressed.weights
        )
        places = dict(student.state_dict())
        kept = {
            name: places[name].to(tensor.dtype).cpu().clone() if name in places else tensor
            for name, tensor in compressed.kept.items()
        }
    return replace(compressed, weights=weights, kept=kept)


def _rounded(part: StudentTensor) -> Rounded:
    return round_to(part.values.detach().cpu().float(), part.store)


def _balance(weight: TrainWeight) -> None:
    """Give all cores of a train one norm; their product stays.

    TT-SVD leaves the whole norm in the last core, and one learning rate would then mean something
    else for every core.
    """
    with torch.no_grad():
        norms = torch.stack([core.norm() for core in weight.cores])
        if not bool((norms > 0).all()):
            return
        common = norms.log().mean().exp()
        for core, norm in zip(weight.cores, norms, strict=True):
            core.mul_(common / norm)
