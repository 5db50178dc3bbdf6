"""Rounding to a store and back: a float tensor and a `Store` enter, what is kept on disk leaves.

The integer stores keep k-bit levels, symmetric around zero and half a step away from it:
value = (code - (2**k - 1) / 2) * scale * factor, with codes in bit planes, one float16 scale for
each group of the row-major flattened tensor and one float32 factor for all of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil, prod

import numpy as np
import torch
from torch import Tensor

from ttcompress.errors import DecompositionError
from ttcompress.stores.store import Store

_CLIPS = {
    bits: torch.linspace(lowest, 1.0, count)
    for bits, lowest, count in (
        (2, 0.35, 9),
        (3, 0.45, 9),
        (4, 0.55, 9),
        (5, 0.65, 8),
        (6, 0.80, 6),
        (7, 0.90, 3),
        (8, 1.00, 1),
    )
}
"""Clipping points tried, as fractions of a group's largest magnitude: with few levels a clip wins
most. With the fit of the step behind it, this is within 1 % of a search as fine as one likes.
"""

Scales = tuple[Tensor, Tensor]
"""One scale for each group, float16, and one factor for all, float32."""

_CHUNK, _BLOCK = 1 << 14, 1 << 22
"""Groups and values handled at a time: bounds the memory that rounding takes."""


@dataclass(frozen=True, eq=False)
class Rounded:
    """A tensor as it is stored: `tensors` by the suffix of their key in the artifact.

    A floating-point store has one tensor under ""; an integer store has ".planes" (uint8,
    (bits, ceil(values / 8))), ".scales" (float16, (groups,)) and ".factor" (float32, ()).
    """

    store: Store
    shape: tuple[int, ...]
    tensors: dict[str, Tensor]

    @property
    def bytes(self) -> int:
        """Bytes of all parts: equal to `store.bytes(values)`."""
        return sum(part.numel() * part.element_size() for part in self.tensors.values())

    @classmethod
    def read(
        cls, store: Store, shape: tuple[int, ...], key: str, tensors: Mapping[str, Tensor]
    ) -> Rounded:
        """Find the parts of a stored tensor under `key` + suffix.

        Raises:
            KeyError: a part is missing.
            ValueError: a part has another shape or type than the store needs.
        """
        found = {}
        for suffix, (wanted_shape, dtype) in _parts(store, shape).items():
            part = tensors[key + suffix]
            if (tuple(part.shape), part.dtype) != (wanted_shape, dtype):
                raise ValueError(
                    f"{key}{suffix} is {tuple(part.shape)} of {part.dtype}, "
                    f"but {store.name} needs {wanted_shape} of {dtype}"
                )
            found[suffix] = part
        return cls(store, shape, found)

    def values(self) -> Tensor:
        """What the stored numbers stand for, in float32 of the original shape."""
        if not self.store.is_integer:
            return self.tensors[""].float()
        scales = self.tensors[".scales"].float() * self.tensors[".factor"]
        levels = self.codes().float().sub_(_widest(self.store.bits))
        spread = scales.repeat_interleave(_group(self.store))[: levels.numel()]
        return levels.mul_(spread).reshape(self.shape)

    def codes(self) -> Tensor:  # (values,), uint8
        """The codes of an integer store, out of their bit planes, in row-major order."""
        return _unpack(self.tensors[".planes"], prod(self.shape))


def round_to(values: Tensor, store: Store, scales: Scales | None = None) -> Rounded:
    """Round a float tensor of any shape; an integer store at given scales, or those that fit best.

    Raises:
        DecompositionError: a value is outside what the store can hold.
    """
    shape = tuple(values.shape)
    if store.is_integer:
        fitted = fit_scales(values, store) if scales is None else scales
        return Rounded(store, shape, _round_to_levels(values, store, *fitted))
    kept = values.detach().to(getattr(torch, store.name)).contiguous()
    if not all(bool(part.isfinite().all()) for part in torch.split(kept.reshape(-1), _BLOCK)):
        raise _outside(store, float(values.abs().max()))
    return Rounded(store, shape, {"": kept})


def fit_scales(values: Tensor, store: Store) -> Scales:
    """The scales (float16, (groups,)) and the factor (float32, ()) of an integer store.

    Raises:
        DecompositionError: a value is outside what the store can hold.
    """
    steps = torch.cat([_best_steps(groups, store.bits) for groups in _grouped(values, store)])
    factor = steps.max() if steps.numel() else torch.tensor(0.0)
    if not (bool(factor.isfinite()) and (float(factor) > 0 or not bool(values.float().any()))):
        raise _outside(store, float(values.abs().max()))
    return (steps / factor if factor > 0 else steps).half(), factor


def snap(values: Tensor, scales: Tensor, factor: Tensor, store: Store) -> Tensor:
    """The nearest levels of an integer store at given scales, in float32 of the same shape."""
    coded = _grouped_codes(values, scales, factor, store)
    levels = [(codes.float() - _widest(store.bits)) * steps for codes, steps in coded]
    return torch.cat([chunk.reshape(-1) for chunk in levels]).reshape(values.shape)


def nearest(values: Tensor, steps: Tensor, store: Store) -> Tensor:
    """The nearest level of every value, at the step of each; any shape."""
    return (_codes(values, steps, store.bits) - _widest(store.bits)) * steps


def _round_to_levels(
    values: Tensor, store: Store, scales: Tensor, factor: Tensor
) -> dict[str, Tensor]:
    coded = _grouped_codes(values, scales, factor, store)
    planes = _pack(torch.cat([codes.reshape(-1) for codes, _ in coded]), store.bits)
    return {".planes": planes, ".scales": scales, ".factor": factor}


def _grouped_codes(
    values: Tensor, scales: Tensor, factor: Tensor, store: Store
) -> Iterator[tuple[Tensor, Tensor]]:  # (groups, group) uint8, (groups, 1) float32
    """The codes of a tensor and the step of each group, as many groups at a time as `_grouped`."""
    done = 0
    for groups in _grouped(values, store):
        steps = (scales[done : done + len(groups)].float() * factor)[:, None]
        yield _codes(groups, steps, store.bits), steps
        done += len(groups)


def _grouped(values: Tensor, store: Store) -> Iterator[Tensor]:  # (groups, group) in float32
    """The groups of the flattened tensor, `_CHUNK` at a time, and last the short one if there is.

    It is not padded: zeros would pull its step towards them.
    """
    flat, group = values.detach().reshape(-1), _group(store)
    full = flat.numel() - flat.numel() % group
    yield from (chunk.float() for chunk in torch.split(flat[:full].reshape(-1, group), _CHUNK))
    if full < flat.numel():
        yield flat[full:].float()[None]


def _best_steps(groups: Tensor, bits: int) -> Tensor:  # (groups, group) -> (groups,)
    """The step of each group with the least squared error: the best clip, refined once.

    For given codes the best step has a closed form (least squares), so the search only has to find
    the right codes.
    """
    widest = _widest(bits)
    peaks = groups.abs().amax(dim=1)
    scaled = groups / torch.where(peaks > 0, peaks, 1.0)[:, None]  # so that no square overflows
    best = torch.full_like(peaks, 1 / widest)
    least = torch.full_like(peaks, torch.inf)
    for clip in _CLIPS[bits]:
        levels = _codes(scaled, clip / widest, bits).float() - widest
        fitted = (scaled * levels).sum(1) / levels.square().sum(1)
        error = (scaled - fitted[:, None] * levels).square().sum(1)
        best, least = torch.where(error < least, fitted, best), torch.minimum(error, least)
    return best * peaks


def _codes(groups: Tensor, steps: Tensor, bits: int) -> Tensor:  # uint8, 0 .. 2**bits - 1
    half = 1 << (bits - 1)
    scaled = torch.where(steps > 0, groups / steps, 0.0)
    return (scaled.floor().clamp(-half, half - 1) + half).to(torch.uint8)


def _pack(codes: Tensor, bits: int) -> Tensor:  # (values,) -> (bits, ceil(values / 8)), uint8
    array = codes.numpy()
    planes = [np.packbits((array >> bit) & 1, bitorder="little") for bit in range(bits)]
    return torch.from_numpy(np.stack(planes))


def _unpack(planes: Tensor, values: int) -> Tensor:  # the inverse of `_pack`
    bits = np.unpackbits(planes.numpy(), axis=1, count=values, bitorder="little")
    codes = np.zeros(values, np.uint8)
    for bit, plane in enumerate(bits):
        codes |= plane << np.uint8(bit)
    return torch.from_numpy(codes)


def _parts(store: Store, shape: tuple[int, ...]) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Shape and dtype of each part of a stored tensor, by the suffix of its key."""
    if not store.is_integer:
        return {"": (shape, getattr(torch, store.name))}
    values = prod(shape)
    return {
        ".planes": ((store.bits, ceil(values / 8)), torch.uint8),
        ".scales": ((ceil(values / _group(store)),), torch.float16),
        ".factor": ((), torch.float32),
    }


def _widest(bits: int) -> float:
    """The outermost level: codes count from minus this, in whole steps."""
    return ((1 << bits) - 1) / 2


def _outside(store: Store, largest: float) -> DecompositionError:
    """The refusal of a tensor by its largest magnitude: beyond float32 no store holds it."""
    cure = "Keep this weight by a rule: format: keep"
    if largest <= torch.finfo(torch.float32).max:
        cure = "Use float32" if store.is_integer else "Use bfloat16, float32 or an integer store"
    return DecompositionError(f"{store.name} cannot hold the value {largest:.3g}. {cure}.")


def _group(store: Store) -> int:
    if store.group is None:
        raise ValueError(f"{store.name} has no groups")
    return store.group
