"""Gives modules plain weights again where they compute them from other tensors.

A checkpoint of a module under weight norm, spectral norm, pruning or a parametrization is read as
plain weights (`ttcompress.checkpoint.reparametrised`): `make_plain` prepares a module for those.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import nn
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm


@dataclass(frozen=True)
class _Computed:
    """A tensor that a module computes: its name, those of what it comes from, and the way back."""

    name: str
    parts: tuple[str, ...]
    remove: Callable[[], object]


def plain_shapes(model: nn.Module, names: Container[str]) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of a state dict, as it will be after `make_plain`."""
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for path, module in model.named_modules():
        for found in _computed(module, path, names):
            for part in found.parts:
                shapes.pop(part, None)
            shapes[_join(path, found.name)] = tuple(getattr(module, found.name).shape)
    return shapes


def make_plain(model: nn.Module, names: Container[str]) -> nn.Module:
    """Make those of a module's computed tensors that are in `names` plain ones, in place.

    The module computes what it did; the same module is returned.
    """
    for path, module in tuple(model.named_modules()):
        for found in tuple(_computed(module, path, names)):
            found.remove()
    return model


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _computed(module: nn.Module, path: str, names: Container[str]) -> Iterator[_Computed]:
    """What one module computes and `names` has plain; parts that are computed come first."""
    if parametrize.is_parametrized(module) and isinstance(module.parametrizations, nn.ModuleDict):
        for own, held in module.parametrizations.items():
            if _join(path, own) in names:
                parts = (
                    _join(path, f"parametrizations.{own}.{part}") for part in held.state_dict()
                )
                remove = partial(parametrize.remove_parametrizations, module, own)
                yield _Computed(own, tuple(parts), remove)
    hooks = [found for hook in module._forward_pre_hooks.values() if (found := _hook(module, hook))]
    outer = [found for found in hooks if _join(path, found.name) in names]
    inner = [found for found in hooks if any(found.name in other.parts for other in outer)]
    for found in (*inner, *outer):
        yield replace(found, parts=tuple(_join(path, part) for part in found.parts))


def _hook(module: nn.Module, hook: object) -> _Computed | None:
    """What a hook of `torch.nn.utils` computes, if it is one."""
    known: tuple[str, tuple[str, ...], Callable[[Any, str], object]]
    if isinstance(hook, WeightNorm):
        known = hook.name, ("_g", "_v"), remove_weight_norm
    elif isinstance(hook, SpectralNorm):
        known = hook.name, ("_orig", "_u", "_v"), remove_spectral_norm
    elif isinstance(hook, prune.BasePruningMethod):
        known = hook._tensor_name, ("_orig", "_mask"), prune.remove
    else:
        return None
    name, suffixes, remove = known
    return _Computed(
        name, tuple(name + suffix for suffix in suffixes), partial(remove, module, name)
    )
