"""A toy format, its half without tensors: W is a sum of Kronecker products, A[r] kron B[r]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from ttcompress.errors import RecipeError
from ttcompress.planning.formats import Layout
from ttcompress.planning.formats.modes import balanced


@dataclass(frozen=True)
class KronLayout(Layout):
    """Cores A (row mode, column mode, rank) and B (rank, row mode, column mode)."""

    format = "kron"

    @classmethod
    def candidates(cls, shape: tuple[int, int], gates: int = 1) -> tuple[Self, ...]:
        rows, columns = (balanced(side, 2) or (1, side) for side in shape)
        return (cls(rows, columns),)

    @classmethod
    def check_modes(cls, row_modes: Sequence[int], column_modes: Sequence[int]) -> None:
        if (len(row_modes), len(column_modes)) != (2, 2):
            raise RecipeError("a kron has two row modes and two column modes.")

    @property
    def core_axes(self) -> tuple[tuple[int, ...], ...]:
        if (len(self.row_modes), len(self.column_modes)) != (2, 2):
            raise ValueError("a kron has two row modes and two column modes")
        return ((0, 2), (1, 3))

    def core_shapes(self, ranks: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        left, right = self.core_modes
        return ((*left, *ranks), (*ranks, *right))

    def count_multiply_adds(self, ranks: tuple[int, ...]) -> int:
        (a, c), (b, d) = self.core_modes
        return ranks[0] * min(c * d * b + c * b * a, d * c * a + d * a * b)
