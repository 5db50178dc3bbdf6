"""MPO, also called TT-matrix: row and column modes in pairs, one core for each pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Self

from ttcompress.errors import RecipeError
from ttcompress.planning.formats.layout import Layout
from ttcompress.planning.formats.modes import Modes, balanced, divisors, split_gates


@dataclass(frozen=True)
class MpoLayout(Layout):
    """One core `(rank, row_mode, column_mode, rank)` for each pair of modes.

    >>> MpoLayout((4, 8), (2, 8)).core_shapes((5,))
    ((1, 4, 2, 5), (5, 8, 8, 1))
    >>> MpoLayout((4, 8), (2, 8)).cuts
    ((4, 2),)
    """

    format = "mpo"
    aliases = ("ttm", "tt-matrix", "blocktt")
    cost_model = (
        "params = sum of r[k-1] m[k] n[k] r[k]; multiply-adds = sum of r[k-1] m[1] .. m[k] "
        "n[k] .. n[d] r[k], or rows x columns where rebuilding W is cheaper"
    )

    @classmethod
    def candidates(cls, shape: tuple[int, int], gates: int = 1) -> tuple[Self, ...]:
        """Two and three balanced pairs; the gates with a small column mode.

        A mode of 1 appears only where a side is prime (or 1): (rows, 1) x (1, columns) is the SVD
        again, and would make every comparison with MPS empty.
        """
        rows, columns = shape
        pairs: list[tuple[Modes, Modes]] = []
        for count in (2, 3):
            row_side, column_side = balanced(rows, count), balanced(columns, count)
            if row_side and column_side:
                pairs.append((row_side, column_side[::-1]))
        split = split_gates(rows, gates)
        small = [d for d in divisors(columns) if 1 < d <= 2 * gates and d < columns]
        if split and small:
            pairs.append((split, (small[-1], columns // small[-1])))
        if not pairs:
            pairs = [(balanced(rows, 2) or (rows, 1), balanced(columns, 2) or (1, columns))]
        return tuple(dict.fromkeys(cls(*pair) for pair in pairs))

    @classmethod
    def check_modes(cls, row_modes: Sequence[int], column_modes: Sequence[int]) -> None:
        """Refuse modes that do not pair."""
        if len(row_modes) != len(column_modes):
            rows, columns = len(row_modes), len(column_modes)
            raise RecipeError(
                f"an mpo pairs its modes, but there are {rows} row mode{'s' * (rows != 1)} and"
                f" {columns} column mode{'s' * (columns != 1)}: {list(row_modes)} and"
                f" {list(column_modes)}."
                "\nGive the same number of both; a mode may be 1."
            )

    @property
    def core_axes(self) -> tuple[tuple[int, ...], ...]:
        """A row mode and a column mode in each core."""
        count = len(self.row_modes)
        rows, columns = range(count), range(count, count + len(self.column_modes))
        return tuple(zip(rows, columns, strict=True))

    def count_multiply_adds(self, ranks: tuple[int, ...]) -> int:
        """Multiply-adds from the first core to the last or back, whichever is cheaper."""
        backwards = self.reversed.sweep_multiply_adds(ranks[::-1])
        return min(self.sweep_multiply_adds(ranks), backwards)

    def sweep_multiply_adds(self, ranks: Sequence[int]) -> int:
        """Multiply-adds of contracting x from the first core to the last."""
        total, produced, pending = 0, 1, self.shape[1]
        modes = zip(self.row_modes, self.column_modes, pairwise((1, *ranks, 1)), strict=True)
        for row, column, (a, b) in modes:
            total += produced * pending * a * row * b
            produced, pending = produced * row, pending // column
        return total

    @cached_property
    def reversed(self) -> MpoLayout:
        """The same modes from last to first."""
        return MpoLayout(self.row_modes[::-1], self.column_modes[::-1])
