"""Stores values as integers of 2 to 8 bits, with one scale for each group of values.

A group without zeros has levels that are symmetric around zero and half a step away from it. A
group with zeros (padding, pruned weights) has a level at zero instead, so that zeros stay zeros;
the sign of its scale says so:

    value = (code - (2**bits - 1) / 2) * scale * factor            scale >= 0
    value = (code - 2**(bits - 1)) * |scale| * factor              scale < 0

Codes are kept in bit planes (plane k holds bit k of every code, eight values a byte, the first in
the lowest bit). There is one float16 scale for each group of the row-major flattened tensor, the
last of which may be short, and one float32 factor for all of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil, prod
from typing import TYPE_CHECKING

from ttcompress.stores.store import Costs, Encoded, Parts, Shape, Store
from ttcompress.system.late import np, torch

if TYPE_CHECKING:
    from torch import Tensor

_CHUNK = 1 << 14
"""How many groups are rounded together: bounds the memory."""


@dataclass(frozen=True, kw_only=True)
class Integers(Store):
    """Codes of `bits` bits, with a scale for each `group` values.

    The parts are ".planes" (uint8, (bits, ceil(values / 8))), ".scales" (float16, (groups,)) and
    ".factor" (float32, ()).

    >>> INTEGERS[2].estimate_bytes(64)  # int4: 32 of codes, 2 of one scale, 4 of the factor
    38
    """

    bits: int
    group: int
    lowest_clip: float  # as a fraction of a group's largest magnitude
    clips: int  # how many are tried, from the lowest to 1

    @property
    def bytes_per_value(self) -> float:
        """The bytes of a code, and the value's share of a scale."""
        return self.bits / 8 + 2 / self.group

    def parts(self, shape: Shape) -> Parts:
        """Codes, scales and factor."""
        values = prod(shape)
        return {
            ".planes": ((self.bits, ceil(values / 8)), "uint8"),
            ".scales": ((ceil(values / self.group),), "float16"),
            ".factor": ((), "float32"),
        }

    def encode(self, values: Tensor, fitted: Mapping[str, Tensor] | None = None) -> Encoded:
        """Round to the nearest levels; zeros stay zeros where the scales are fitted to them."""
        fitted = self.fit(values) if fitted is None else fitted
        scales, factor = fitted["scales"], fitted["factor"]
        codes, done = [], 0
        for groups in self._grouped(values):
            steps = scales[done : done + len(groups)].float() * factor
            codes.append(self._codes(groups, steps[:, None]).reshape(-1))
            done += len(groups)
        tensors = {".planes": _pack(torch.cat(codes), self.bits), ".scales": scales}
        return Encoded(self, tuple(values.shape), tensors | {".factor": factor})

    def fit(self, values: Tensor, costs: Costs | None = None) -> dict[str, Tensor]:
        """Find scales (float16, (groups,)) and factor (float32, ()) of the least squared error.

        The factor is the largest step, so that the scales are in the range of float16. A group with
        zeros gets a negative scale: its levels include zero.
        """
        steps = torch.cat([self._best_steps(groups) for groups in self._grouped(values)])
        factor = steps.abs().max() if steps.numel() else torch.tensor(0.0)
        if not (bool(factor.isfinite()) and (float(factor) > 0 or not bool(values.float().any()))):
            raise self.refusal(values, "Use float32")
        return {"scales": (steps / factor if factor > 0 else steps).half(), "factor": factor}

    def snap(self, values: Tensor, fitted: Mapping[str, Tensor]) -> Tensor:
        """Round to the nearest levels without packing them, on any device."""
        values = values.detach().float()
        return self.nearest(values, self.steps(fitted, values))

    def steps(self, fitted: Mapping[str, Tensor], like: Tensor) -> Tensor:
        """The scale of each value's group, times the factor; its sign is the scale's."""
        steps = fitted["scales"].to(like.dtype) * fitted["factor"]
        spread = steps[:, None].expand(-1, self.group).reshape(-1)
        return spread[: like.numel()].reshape(like.shape)

    def nearest(self, values: Tensor, steps: Tensor) -> Tensor:
        """The nearest level of every value."""
        return (self._codes(values, steps) - self._centres(steps)) * steps.abs()

    def unpack(self, tensors: Mapping[str, Tensor], shape: Shape) -> dict[str, Tensor]:
        """Codes (groups, group), the last group padded with zeros; scales and factor as stored.

        If any group has a level at zero, also the code of each group's centre, (groups,): `widen`
        then needs no signs, and without such groups an exported file stays as simple as it can be.
        """
        codes = _unpack(tensors[".planes"], prod(shape))
        whole = torch.nn.functional.pad(codes, (0, -len(codes) % self.group))
        scales = tensors[".scales"]
        unpacked = {"codes": whole.reshape(-1, self.group), "scales": scales.abs()}
        if bool((scales < 0).any()):
            unpacked["centres"] = self._centres(scales)
        return {**unpacked, "factor": tensors[".factor"]}

    def widen(self, unpacked: Mapping[str, Tensor], shape: Shape) -> Tensor:
        """The levels of the codes, by the formulas at the top of this file."""
        levels = unpacked["codes"].float()
        if "centres" in unpacked:
            levels = levels - unpacked["centres"].float()[:, None]
        else:
            levels = levels - self._widest
        grouped = levels * (unpacked["scales"].float() * unpacked["factor"])[:, None]
        return grouped.reshape(-1)[: prod(shape)].reshape(shape)

    @property
    def _widest(self) -> float:
        """The outermost level, (2**bits - 1) / 2: codes count up from minus this in steps of 1."""
        return ((1 << self.bits) - 1) / 2

    def _centres(self, steps: Tensor) -> Tensor:  # any shape, of steps or scales
        """What to subtract from codes: 2**(bits - 1) where a level is zero, else half less."""
        return self._widest + 0.5 * (steps < 0).to(steps.dtype)

    def _grouped(self, values: Tensor) -> Iterator[Tensor]:  # (groups, group) in float32
        """The groups of the flattened tensor, `_CHUNK` at a time, and last the short one if any.

        It is not padded: zeros would pull its step towards them.
        """
        flat = values.detach().reshape(-1)
        full = flat.numel() - flat.numel() % self.group
        whole = torch.split(flat[:full].reshape(-1, self.group), _CHUNK)
        yield from (chunk.float() for chunk in whole)
        if full < flat.numel():
            yield flat[full:].float()[None]

    def _best_steps(self, groups: Tensor) -> Tensor:  # (groups, group) -> (groups,)
        """The step of each group with the least squared error: the best clip, refined once.

        For given levels l (codes minus their centre) the best step of a group w is the least
        squares solution step = <w, l> / <l, l>, so the search over clips only has to find good
        codes. The step of a group with zeros is negative.
        """
        peaks = groups.abs().amax(dim=1)
        scaled = groups / torch.where(peaks > 0, peaks, 1.0)[:, None]  # so that no square overflows
        signs = torch.where((groups == 0).any(1) & (peaks > 0), -1.0, 1.0)
        widest = self._widest - 0.5 * (signs < 0)  # the outermost level of each group
        best = 1 / widest
        least = torch.full_like(peaks, torch.inf)
        for clip in torch.linspace(self.lowest_clip, 1.0, self.clips):
            steps = signs * clip / widest
            levels = self._codes(scaled, steps[:, None]).float() - self._centres(steps)[:, None]
            fitted = (scaled * levels).sum(1) / levels.square().sum(1)
            error = (scaled - fitted[:, None] * levels).square().sum(1)
            best, least = torch.where(error < least, fitted, best), torch.minimum(error, least)
        return signs * best * peaks

    def _codes(self, values: Tensor, steps: Tensor) -> Tensor:  # uint8, 0 .. 2**bits - 1
        half = 1 << (self.bits - 1)
        scaled = torch.where(steps != 0, values / steps.abs(), 0.0)
        shift = 0.5 * (steps < 0).to(scaled.dtype)  # round to nearest: a level is at zero
        levels = torch.maximum((scaled + shift).floor(), 2 * shift - half)
        return (levels.clamp(max=half - 1) + half).to(torch.uint8)


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


INTEGERS = tuple(
    Integers(
        name=f"int{bits}",
        bits=bits,
        group=32 if bits <= 3 else 64,
        noise=noise,
        lowest_clip=lowest_clip,
        clips=clips,
        coarse=bits < 8,
        in_auto=True,
    )
    # Clipping gains most with few levels. Since the step is fitted afterwards, these searches are
    # within 1 % of arbitrarily fine ones.
    for bits, noise, lowest_clip, clips in (
        (2, 1.07e-1, 0.35, 9),
        (3, 2.92e-2, 0.45, 9),
        (4, 8.68e-3, 0.55, 9),
        (5, 2.18e-3, 0.65, 8),
        (6, 5.45e-4, 0.80, 6),
        (7, 1.37e-4, 0.90, 3),
        (8, 3.42e-5, 1.00, 1),
    )
)
