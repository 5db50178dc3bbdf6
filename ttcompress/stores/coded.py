"""Stores values as integers of any size, in as many bits as they carry: entropy-coded.

A core is a grid, a row for each rank component and a column for each place of its modes (see
`as_grid`). Every row and every column has a scale, and no value is clipped:

    value = code * step * 2**(row / 4) * 2**(column / 4)

A value is rounded as finely as an error in it is dear: at equal cost of a unit error, steps are
equal, and where it costs four times as much, they are half as wide (reverse water-filling; Cover
and Thomas, "Elements of information theory", 2006, section 10.3). So one number, `step`, says how
fine a whole model is, and what carries little takes few bits.

The only part is ".coded" (uint8), bytes in this order: `step` as a little-endian float32, the
length of the next piece as a little-endian uint32, the scales of the rows and then of the columns
as one row of coded integers, and the codes. `rans` codes both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil, inf, isfinite
from typing import TYPE_CHECKING, Self

from ttcompress.stores.rans import decode, encode
from ttcompress.stores.rates import Fit, estimate_bits, fit, most_bytes
from ttcompress.stores.store import Costs, Encoded, Parts, Shape, Store, as_grid, from_grid
from ttcompress.system.late import np, torch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    Ints = NDArray[np.integer]

PART = ".coded"

FINE = 1 / 16
"""The step without a plan, relative to the root mean square of the values: some 6 bits each."""

_HEADER = 8
"""Bytes of the step and of the length of the scales."""

_FOURTH_ROOTS = (1.0, 1.189207077026367, 1.4142135381698608, 1.6817928552627563)
"""Of 1, 2, 4 and 8, in float32."""

_BLOCK = 1 << 20
"""How many values are rounded together: in float64 a large matrix would take several copies."""

_MOST_SCALE = 96
"""The largest scale to either side: 24 octaves, far beyond float32's resolution."""


@dataclass(frozen=True, kw_only=True)
class Coded(Store):
    """Entropy-coded integers; `step` is that of a value in which a unit error costs 1.

    Without a `step` (None) values are rounded at `FINE` of their root mean square.
    """

    step: float | None = None

    def at(self, step: float) -> Self:
        """The same store as fine as this."""
        return replace(self, step=step)

    @property
    def bytes_per_value(self) -> float:
        """Roughly, at `FINE`."""
        return 0.75

    def estimate_bytes(self, values: int) -> int:
        """At `FINE`; how many it really takes depends on the values and on `step`."""
        return ceil(0.75 * values) + 40

    def most_bytes(self, values: int) -> int:
        """Of the codes, and of at most as many scales and one more."""
        return _HEADER + most_bytes(values) + most_bytes(values + 1)

    def parts(self, shape: Shape) -> Parts:
        """One, of any length."""
        return {PART: ((None,), "uint8")}

    def fit(self, values: Tensor, costs: Costs | None = None) -> dict[str, Tensor]:
        """Find the scales: int16 `rows` (components,) and `columns` (places,), and `step`, ()."""
        grid = as_grid(values.detach())
        largest = float(torch.linalg.vector_norm(grid, inf)) if grid.numel() else 0.0
        if not largest <= torch.finfo(torch.float32).max:  # nor if it is NaN
            raise self.refusal(values, "It is not finite")
        if costs is None:
            rows, columns = (torch.zeros(side, dtype=torch.int16) for side in grid.shape)
        else:
            rows, columns = _scales(costs.components), _scales(costs.places)
        step = self.step
        if step is None or costs is None:
            step = FINE * float(grid.double().square().mean().sqrt()) if grid.numel() else 0.0
        # The scales are small integers: what they have in common is the step's.
        shared = [int(scale.median()) if scale.numel() else 0 for scale in (rows, columns)]
        rows, columns = (
            (scale - middle).clamp(-_MOST_SCALE, _MOST_SCALE)
            for scale, middle in zip((rows, columns), shared, strict=True)
        )
        whole = torch.tensor(step * 2.0 ** (sum(shared) / 4), dtype=torch.float32)
        return {"rows": rows, "columns": columns, "step": whole}

    def fitted(self, part: Encoded) -> dict[str, Tensor]:
        """What `fit` had found for a stored tensor."""
        grid = self._grid(part.tensors, part.shape)
        rows, columns = self._split(grid)
        return {"rows": rows, "columns": columns, "step": torch.tensor(grid.step)}

    def count_bits(self, codes: Tensor) -> float:  # (components, places)
        """The bits that these codes will take, without coding them."""
        return estimate_bits(codes.to(torch.int64).cpu().numpy())

    def steps(self, fitted: Mapping[str, Tensor], like: Tensor) -> Tensor:
        """Step, row and column multiplied: 0 where all values are rounded to 0."""
        rows, columns = _sides(fitted)
        return from_grid(rows * columns, tuple(like.shape)).to(like)

    def nearest(self, values: Tensor, steps: Tensor) -> Tensor:
        """The nearest multiple of the step."""
        return _round(values, steps) * steps

    def encode(self, values: Tensor, fitted: Mapping[str, Tensor] | None = None) -> Encoded:
        """Round to the nearest multiples of the steps and code them."""
        fitted = self.fit(values) if fitted is None else fitted
        step, scales = float(fitted["step"]), torch.cat([fitted["rows"], fitted["columns"]])
        grid = _Grid(self._codes(values, fitted), scales.to(torch.int64).numpy(), step)
        return Encoded(self, tuple(values.shape), grid)

    def opened(self, tensors: Mapping[str, Tensor], shape: Shape) -> _Grid:
        """Decode the part, once and for all.

        Raises:
            ValueError: it is damaged.
        """
        components, places = as_grid(torch.empty(shape, device="meta")).shape
        return _Grid.read(tensors[PART], components, places)

    def about_bytes(self, tensors: Mapping[str, Tensor]) -> float | None:
        """By the rate of the codes, where they are not coded yet."""
        return tensors.estimate() if isinstance(tensors, _Grid) else None

    def unpack(self, tensors: Mapping[str, Tensor], shape: Shape) -> dict[str, Tensor]:
        """The codes as a grid, in the smallest type that holds them; rows' and columns' factors."""
        grid = self._grid(tensors, shape)
        codes = torch.from_numpy(grid.codes)
        rows, columns = self._split(grid)
        return {
            "codes": codes.to(_smallest_type(codes)),
            "rows": _powers(rows) * grid.step,
            "columns": _powers(columns),
        }

    def _grid(self, tensors: Mapping[str, Tensor], shape: Shape) -> _Grid:
        return tensors if isinstance(tensors, _Grid) else self.opened(tensors, shape)

    def _split(self, grid: _Grid) -> tuple[Tensor, Tensor]:
        """The scales of the rows and of the columns."""
        rows = len(grid.codes)
        return torch.from_numpy(grid.scales[:rows]), torch.from_numpy(grid.scales[rows:])

    def widen(self, unpacked: Mapping[str, Tensor], shape: Shape) -> Tensor:
        """Codes times their rows' factors, times their columns'."""
        grid = unpacked["codes"].float() * unpacked["rows"][:, None] * unpacked["columns"]
        return from_grid(grid, shape)

    def _codes(self, values: Tensor, fitted: Mapping[str, Tensor]) -> Ints:
        """The codes as a grid, in the smallest type that holds them."""
        grid, (rows, columns) = as_grid(values.detach()), _sides(fitted)
        size, found = max(1, _BLOCK // max(1, len(columns))), []
        for block, scale in zip(torch.split(grid, size), torch.split(rows, size), strict=True):
            rounded = _round(block.double(), (scale * columns).double())
            if rounded.numel() and float(rounded.abs().max()) >= 2**31:
                raise self.refusal(values, "Its step is too small: allow more error")
            found.append(rounded.to(_smallest_type(rounded)))
        widest = max((one.dtype for one in found), key=lambda dtype: dtype.itemsize)
        return torch.cat([one.to(widest) for one in found]).numpy()


@dataclass(frozen=True, eq=False)
class _Grid(Mapping[str, "Tensor"]):
    """The integers of a stored tensor; as a mapping, the part that they are coded into.

    Coding takes longer than rounding, so it waits until somebody asks for the part.
    """

    codes: Ints  # (components, places)
    scales: Ints  # (components + places,)
    step: float

    @classmethod
    def read(cls, part: Tensor, components: int, places: int) -> Self:
        """Decode a part.

        Raises:
            ValueError: it is damaged.
        """
        stream = part.cpu().numpy()
        if len(stream) < _HEADER:
            raise ValueError(f"{len(stream)} bytes are too few for coded values")
        step, end = (
            float(stream[:4].view("<f4")[0]),
            _HEADER + int(stream[4:_HEADER].view("<u4")[0]),
        )
        scales = decode(stream[_HEADER:end], 1, components + places)[0]
        if not isfinite(step) or np.abs(scales).max(initial=0) > _MOST_SCALE:
            raise ValueError(f"coded values have a step of {step} or scales beyond {_MOST_SCALE}")
        grid = cls(decode(stream[end:], components, places), scales, step)
        vars(grid)["_coded"] = part  # what the file holds, and need not be coded again
        return grid

    def estimate(self) -> float:
        """Bytes of the part, without coding."""
        return _HEADER + sum(found.bits for found in self._fits) / 8

    @cached_property
    def _fits(self) -> tuple[Fit, Fit]:
        """What decides the frequencies of the scales and of the codes: half the time of coding."""
        return fit(self.scales[None]), fit(self.codes)

    @cached_property
    def _coded(self) -> Tensor:
        of_scales, of_codes = self._fits
        scales, codes = encode(self.scales[None], of_scales), encode(self.codes, of_codes)
        step, length = np.array([self.step], "<f4"), np.array([len(scales)], "<u4")
        pieces = (step.view(np.uint8), length.view(np.uint8), scales, codes)
        return torch.from_numpy(np.concatenate(pieces))

    def __getitem__(self, key: str) -> Tensor:
        if key != PART:
            raise KeyError(key)
        return self._coded

    def __iter__(self) -> Iterator[str]:
        return iter((PART,))

    def __len__(self) -> int:
        return 1


def _round(values: Tensor, steps: Tensor) -> Tensor:
    """The nearest integers to values / steps, 0 where a step is 0."""
    return torch.where(steps > 0, values / steps, 0.0).round()


def _scales(costs: Tensor) -> Tensor:  # (n,) -> (n,) int16
    """Fourths of an octave of 1 / sqrt(cost); what costs nothing is as coarse as the coarsest."""
    least = costs[costs > 0].min() if bool((costs > 0).any()) else torch.ones(())
    return (-2 * costs.clamp(min=float(least)).double().log2()).round().to(torch.int16)


def _powers(scales: Tensor) -> Tensor:  # (n,) integers -> (n,) float32
    """2**(scale / 4), the same on every machine."""
    whole = scales.to(torch.int64)
    roots = torch.tensor(_FOURTH_ROOTS)[whole % 4]
    return torch.ldexp(roots, whole.div(4, rounding_mode="floor"))


def _sides(fitted: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """What the steps are the product of: one for each row, (rows, 1), and for each column."""
    return _powers(fitted["rows"])[:, None] * fitted["step"], _powers(fitted["columns"])


def _smallest_type(codes: Tensor) -> torch.dtype:
    largest = int(codes.abs().max()) if codes.numel() else 0
    for dtype in (torch.int8, torch.int16):
        if largest <= torch.iinfo(dtype).max:
            return dtype
    return torch.int32


CODED = Coded(name="coded", noise=float("inf"), coarse=True)
