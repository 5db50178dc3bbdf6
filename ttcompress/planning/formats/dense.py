"""Dense: the whole matrix in the store's bits. One core, no cuts, no ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Self

from ttcompress.planning.formats.layout import Layout


@dataclass(frozen=True)
class DenseLayout(Layout):
    """The matrix (rows, columns) as a single core; each side is one mode.

    >>> DenseLayout((32,), (16,)).core_shapes(())
    ((32, 16),)
    """

    format = "dense"
    decomposes = False

    @classmethod
    def candidates(cls, shape: tuple[int, int], gates: int = 1) -> tuple[Self, ...]:
        """The only layout: both sides whole."""
        return (cls(shape[:1], shape[1:]),)

    @property
    def core_axes(self) -> tuple[tuple[int, ...], ...]:
        """All modes in one core."""
        return (tuple(range(len(self.row_modes) + len(self.column_modes))),)

    def core_shapes(self, ranks: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """The shape of the matrix, without ranks."""
        return (self.shape,)

    @property
    def core_names(self) -> tuple[str, ...]:
        """One name, without a number."""
        return ("dense",)

    def count_multiply_adds(self, ranks: tuple[int, ...]) -> int:
        """One product with the matrix."""
        return prod(self.shape)

    def rebuilding_rank(self, ranks: Sequence[int]) -> int:
        """0: nothing is rebuilt, and a lookup reads its rows directly."""
        return 0

    def as_json(self) -> dict[str, Any]:
        """The format alone: there are no modes to choose."""
        return {"format": self.format, "row_modes": (), "column_modes": ()}
