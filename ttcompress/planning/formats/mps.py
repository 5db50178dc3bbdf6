"""MPS, also called tensor train: the rows' modes, then the columns', one core for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Self

from ttcompress.errors import RecipeError
from ttcompress.planning.formats.layout import Layout
from ttcompress.planning.formats.modes import Modes, balanced, split_gates


@dataclass(frozen=True)
class MpsLayout(Layout):
    """One core `(rank, mode, rank)` for each row mode, then for each column mode.

    With one row mode and one column mode it is the truncated SVD.

    >>> MpsLayout((4, 8), (16,)).core_shapes((4, 3))
    ((1, 4, 4), (4, 8, 3), (3, 16, 1))
    >>> MpsLayout((4, 8), (16,)).cuts
    ((4, 1), (32, 1))
    """

    format = "mps"
    aliases = ("tt", "tensor-train")
    cost_model = (
        "params = sum of r[k-1] n[k] r[k]; multiply-adds = r (rows + columns), middle rank r"
    )

    @classmethod
    def candidates(cls, shape: tuple[int, int], gates: int = 1) -> tuple[Self, ...]:
        """Both sides whole; the gates split off; rows halved; both sides halved.

        >>> [layout.row_modes for layout in MpsLayout.candidates((1024, 83), gates=4)]
        [(1024,), (4, 256), (32, 32)]
        """
        rows, columns = shape
        sides = [(rows,), split_gates(rows, gates), balanced(rows, 2)]
        pairs: list[tuple[Modes, Modes]] = [(side, (columns,)) for side in sides if side]
        halves = balanced(rows, 2), balanced(columns, 2)
        if halves[0] and halves[1]:
            pairs.append((halves[0], halves[1]))
        return tuple(dict.fromkeys(cls(*pair) for pair in pairs))

    @classmethod
    def check_modes(cls, row_modes: Sequence[int], column_modes: Sequence[int]) -> None:
        """Refuse modes of 1, which add cores and nothing else."""
        if any(1 in modes and len(modes) > 1 for modes in (row_modes, column_modes)):
            raise RecipeError(
                "a mode of 1 makes an mps longer but not smaller:"
                f" {list(row_modes)} and {list(column_modes)}. Remove it."
            )

    @property
    def core_axes(self) -> tuple[tuple[int, ...], ...]:
        """One mode in each core."""
        return tuple((axis,) for axis in range(len(self.row_modes) + len(self.column_modes)))

    @property
    def middle(self) -> int:
        """Between the last row mode and the first column mode."""
        return len(self.row_modes) - 1

    def count_multiply_adds(self, ranks: tuple[int, ...]) -> int:
        """Multiply-adds of both halves, each merged into one factor or applied core by core."""
        rows, middle = len(self.row_modes), ranks[self.middle]
        outer_left, outer_right = (1, *ranks[: rows - 1]), (1, *reversed(ranks[rows:]))
        return _half(self.row_modes, outer_left, middle) + _half(
            self.column_modes[::-1], outer_right, middle
        )


def _half(modes: Sequence[int], outer: Sequence[int], middle: int) -> int:
    """Cost of one half: `modes` and their outer ranks from the end of the train to the middle.

    Applying core by core shrinks the vector by one mode at a time:
    (modes left) x (mode, outer rank, inner rank).
    """
    inner = (*outer[1:], middle)
    chain, remaining = 0, (whole := prod(modes))
    for mode, a, b in zip(modes, outer, inner, strict=True):
        chain += remaining * a * b
        remaining //= mode
    return min(chain, whole * middle)
