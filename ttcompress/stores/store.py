"""The base class of stores, `Store`: sizes, rounding noise, and how values are encoded.

Its sizes and noise need no torch, and the planner uses these alone. Its other methods turn values
into an `Encoded` tensor and back:

    encoded = store.encode(core)        # the tensors that the artifact will hold
    encoded.values()                    # the rounded values, in float32
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from ttcompress.errors import DecompositionError
from ttcompress.system.late import torch

if TYPE_CHECKING:
    from torch import Tensor

Shape = tuple[int, ...]

Parts = dict[str, tuple[tuple[int | None, ...], str]]
"""Shape and type (torch's name of it) of each stored tensor, by the suffix of its key in the file.
A side is None if it depends on the values, such as the length of a compressed code.
"""

_ITEM_BYTES = {"uint8": 1, "int8": 1, "float16": 2, "bfloat16": 2, "float32": 4}


@dataclass(frozen=True, eq=False)
class Costs:
    """What a unit error in each value of a core costs: its component's cost times its place's.

    A dense weight counts as a core. `components` is (components,), `places` is (places,), as
    `as_grid` arranges the values.
    """

    components: Tensor
    places: Tensor


def as_grid(values: Tensor) -> Tensor:  # (components, places), a view where possible
    """Arrange a core with a row for each rank component, or leave a matrix as it is.

    A component is an index of the rank after the core: (before, modes, after) -> (after, before *
    modes). That of the last core, where the rank after is 1, is an index of the rank before.
    """
    if values.dim() < 2:
        return values[None]
    rows = values if values.dim() == 2 or values.shape[-1] == 1 else values.movedim(-1, 0)
    return rows.reshape(len(rows), prod(rows.shape[1:]))


def from_grid(grid: Tensor, shape: Shape) -> Tensor:
    """The inverse of `as_grid`."""
    if len(shape) < 3 or shape[-1] == 1:
        return grid.reshape(shape)
    return grid.reshape(shape[-1], *shape[:-1]).movedim(0, -1)


@dataclass(frozen=True, kw_only=True)
class Store(ABC):
    """A way to store the values of a core or of a dense weight.

    A subclass must define `bytes_per_value`, `parts`, `encode` and `widen`; the rest has defaults.

    Attributes:
        name: its name in recipes.
        noise: the expected squared error of rounding, divided by the squared norm, for normally
            distributed values (which the entries of singular vectors nearly are). It was measured
            with `encode`, and a test checks it. The planner chooses by it; the errors in a report
            are always measured. Infinite where the planner decides how fine the store is.
        coarse: whether rounding loses so much that it should be compensated: training then sees
            the rounded values, and calibration corrects later values for the error of earlier ones.
        in_auto: whether `store: auto` may choose it.
    """

    name: str
    noise: float
    coarse: bool = False
    in_auto: bool = False

    @property
    @abstractmethod
    def bytes_per_value(self) -> float:
        """The size of one more value when there are many."""

    def estimate_bytes(self, values: int) -> int:
        """Bytes of one tensor with this many values, before these are known.

        Exact if `parts` has no side of None; other stores must define this and `most_bytes`.
        """
        total = 0
        for sides, dtype in self.parts((values,)).values():
            known = [side for side in sides if side is not None]
            total += prod(known) * _ITEM_BYTES[dtype]
        return total

    def most_bytes(self, values: int) -> int:
        """An upper bound of the bytes, whatever the values are."""
        return self.estimate_bytes(values)

    @abstractmethod
    def parts(self, shape: Shape) -> Parts:
        """The tensors that an artifact holds for one tensor of this shape."""

    @abstractmethod
    def encode(self, values: Tensor, fitted: Mapping[str, Tensor] | None = None) -> Encoded:
        """Round a floating-point tensor of any shape.

        Args:
            values: what to round.
            fitted: what `fit` returned, for these values or others of their shape; by default it is
                fitted to these.

        Raises:
            DecompositionError: a value is out of the range of the store.
        """

    def fit(self, values: Tensor, costs: Costs | None = None) -> dict[str, Tensor]:
        """Find what rounding needs to know of all values, such as scales.

        Args:
            values: what will be rounded.
            costs: of errors in them, for stores that round cheap values more coarsely.

        Raises:
            DecompositionError: a value is out of the range of the store.
        """
        return {}

    def snap(self, values: Tensor, fitted: Mapping[str, Tensor]) -> Tensor:
        """Round values as `encode` does, in float32: training computes with these."""
        return self.encode(values, fitted).values()

    def steps(self, fitted: Mapping[str, Tensor], like: Tensor) -> Tensor | None:
        """The distance between the levels at each value, in the shape and type of `like`.

        None if levels are not evenly spaced: values can then not be rounded one after another.
        """
        return None

    def nearest(self, values: Tensor, steps: Tensor) -> Tensor:
        """The level nearest to each value, if there are `steps`; any shape."""
        raise NotImplementedError

    def opened(self, tensors: Mapping[str, Tensor], shape: Shape) -> Mapping[str, Tensor]:
        """The parts read from a file, whose shapes and types were checked.

        Raises:
            ValueError: what they hold is damaged.
        """
        return tensors

    def about_bytes(self, tensors: Mapping[str, Tensor]) -> float | None:
        """An estimate of the bytes of parts that are not coded yet; None if they are."""
        return None

    def unpack(self, tensors: Mapping[str, Tensor], shape: Shape) -> dict[str, Tensor]:
        """The tensors that `widen` needs, by name: the parts, in types that a runtime can read.

        An exported file holds these. Codes are named "codes"; if they count from 0 they are uint8,
        and a target may pack them if the largest code allows it.
        """
        return {suffix.lstrip(".") or "kept": tensor for suffix, tensor in tensors.items()}

    @abstractmethod
    def widen(self, unpacked: Mapping[str, Tensor], shape: Shape) -> Tensor:
        """Compute the values in float32 from what `unpack` returned, by methods of tensors only."""

    def refusal(self, values: Tensor, cure: str) -> DecompositionError:
        """Make the error for values too large for the store; beyond float32 no store holds them."""
        largest = float(values.abs().max())
        if largest > torch.finfo(torch.float32).max:
            cure = "Keep this weight by a rule: format: keep"
        return DecompositionError(f"{self.name} cannot hold the value {largest:.3g}. {cure}.")


@dataclass(frozen=True, eq=False)
class Encoded:
    """A stored tensor: its parts by the suffixes of their keys, see `Store.parts`."""

    store: Store
    shape: Shape
    tensors: Mapping[str, Tensor]

    @property
    def bytes(self) -> int:
        """Bytes of all parts, as really written."""
        return sum(part.numel() * part.element_size() for part in self.tensors.values())

    @property
    def about_bytes(self) -> float:
        """The same within .1 %, where coding the values would take longer than estimating."""
        return self.store.about_bytes(self.tensors) or self.bytes

    def values(self) -> Tensor:
        """The rounded values, in float32 and the original shape."""
        return self.store.widen(self.store.unpack(self.tensors, self.shape), self.shape)

    @classmethod
    def read(cls, store: Store, shape: Shape, key: str, tensors: Mapping[str, Tensor]) -> Encoded:
        """Take the parts of a stored tensor from `tensors`, under `key` + suffix.

        Raises:
            KeyError: a part is missing.
            ValueError: a part has another shape or type than the store needs.
        """
        read = {}
        for suffix, (sides, dtype) in store.parts(shape).items():
            part = tensors[key + suffix]
            same_axes = len(part.shape) == len(sides)
            fits = same_axes and all(
                side in (None, found) for side, found in zip(sides, part.shape, strict=True)
            )
            if not fits or str(part.dtype) != f"torch.{dtype}":
                raise ValueError(
                    f"{key}{suffix} is {tuple(part.shape)} of {part.dtype}, "
                    f"but {store.name} needs {sides} of torch.{dtype}"
                )
            read[suffix] = part
        encoded = cls(store, shape, read)
        if encoded.bytes > (most := store.most_bytes(prod(shape))):
            raise ValueError(f"{key} takes {encoded.bytes} bytes, but {store.name} at most {most}")
        try:
            return cls(store, shape, store.opened(read, shape))
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from error
