"""A format with its modes: how a matrix becomes a tensor, what its cores are, and what they cost.

Everything follows from shapes: no tensor and no torch. `ttcompress.trains` executes what is
described here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate, pairwise
from math import prod
from typing import Literal

TrainFormat = Literal["mps", "mpo"]
Format = Literal["mps", "mpo", "dense", "keep"]
TRAIN_FORMATS: tuple[TrainFormat, ...] = ("mps", "mpo")


@dataclass(frozen=True)
class Layout:
    """A train format and the modes of rows and columns; ranks are given to its methods.

    An MPS has one core `(rank, mode, rank)` for each row mode, then for each column mode; an MPO
    has one core `(rank, row_mode, column_mode, rank)` for each pair. Ranks are interior: one fewer
    than cores.

    >>> Layout("mps", (4, 8), (16,)).core_shapes((4, 3))
    ((1, 4, 4), (4, 8, 3), (3, 16, 1))
    >>> Layout("mpo", (4, 8), (2, 8)).core_shapes((5,))
    ((1, 4, 2, 5), (5, 8, 8, 1))
    """

    format: TrainFormat
    row_modes: tuple[int, ...]
    column_modes: tuple[int, ...]

    @cached_property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of the matrix."""
        return prod(self.row_modes), prod(self.column_modes)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Values of one slice of each core: the mode, or row mode x column mode."""
        if self.format == "mps":
            return self.row_modes + self.column_modes
        return tuple(r * c for r, c in zip(self.row_modes, self.column_modes, strict=True))

    @property
    def cores(self) -> int:
        """How many cores."""
        return len(self.sizes)

    @property
    def middle(self) -> int | None:
        """Index of the middle rank of an MPS: the rank of the matrix. An MPO has none."""
        return len(self.row_modes) - 1 if self.format == "mps" else None

    @cached_property
    def cuts(self) -> tuple[tuple[int, int], ...]:
        """The unfolding between each core and the next, as (row prefix, column prefix).

        >>> Layout("mps", (4, 8), (16,)).cuts, Layout("mpo", (4, 8), (2, 8)).cuts
        (((4, 1), (32, 1)), ((4, 2),))
        """
        rows, columns = self.row_modes, self.column_modes
        if self.format == "mps":
            modes = [(row, 1) for row in rows] + [(1, column) for column in columns]
        else:
            modes = list(zip(rows, columns, strict=True))
        prefixes = accumulate(modes, lambda done, mode: (done[0] * mode[0], done[1] * mode[1]))
        return tuple(prefixes)[:-1]

    @cached_property
    def full_ranks(self) -> tuple[int, ...]:
        """The largest ranks that any matrix of this layout can need."""
        total = prod(self.shape)
        return tuple(min(row * column, total // (row * column)) for row, column in self.cuts)

    def attainable(self, ranks: Sequence[int]) -> tuple[int, ...]:
        """Lower each rank to what a train can reach: its neighbours' rank times the mode between.

        >>> Layout("mps", (2, 2), (2, 2)).attainable((8, 8, 8))
        (2, 4, 2)
        >>> Layout("mps", (2, 2), (2, 2)).attainable((1, 4, 2))
        (1, 2, 2)
        """
        sizes, lowered = self.sizes, list(ranks)
        for k in range(len(lowered)):
            lowered[k] = min(lowered[k], sizes[k] * (lowered[k - 1] if k else 1))
        for k in reversed(range(len(lowered))):
            after = lowered[k + 1] if k + 1 < len(lowered) else 1
            lowered[k] = min(lowered[k], sizes[k + 1] * after)
        return tuple(lowered)

    def core_shapes(self, ranks: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """Shape of every core, ranks included."""
        if self.format == "mps":
            modes: list[tuple[int, ...]] = [(size,) for size in self.sizes]
        else:
            modes = list(zip(self.row_modes, self.column_modes, strict=True))
        edges = pairwise((1, *ranks, 1))
        return tuple((a, *mode, b) for mode, (a, b) in zip(modes, edges, strict=True))

    def core_params(self, ranks: Sequence[int]) -> tuple[int, ...]:
        """Values in every core."""
        edges = pairwise((1, *ranks, 1))
        return tuple(a * size * b for size, (a, b) in zip(self.sizes, edges, strict=True))

    def chain_multiply_adds(self, ranks: Sequence[int]) -> int:
        """Multiply-adds of W @ x through the train, never through the dense matrix."""
        return _chain_multiply_adds(self, tuple(ranks))

    def sweep_multiply_adds(self, ranks: Sequence[int]) -> int:
        """Multiply-adds of contracting an MPO with x from its first core to its last."""
        total, produced, pending = 0, 1, prod(self.column_modes)
        modes = zip(self.row_modes, self.column_modes, pairwise((1, *ranks, 1)), strict=True)
        for row, column, (a, b) in modes:
            total += produced * pending * a * row * b
            produced, pending = produced * row, pending // column
        return total

    @cached_property
    def reversed(self) -> Layout:
        """The same modes from last to first."""
        return Layout(self.format, self.row_modes[::-1], self.column_modes[::-1])

    def multiply_adds(self, ranks: Sequence[int]) -> int:
        """Multiply-adds of W @ x by the cheapest order, rebuilding W first being one."""
        return min(self.chain_multiply_adds(ranks), prod(self.shape))


@lru_cache(maxsize=1 << 16)  # an allocation asks for the same ranks of many weights, stores, prices
def _chain_multiply_adds(layout: Layout, ranks: tuple[int, ...]) -> int:
    if layout.format == "mps":
        return _mps_chain(layout, ranks)
    backwards = layout.reversed.sweep_multiply_adds(ranks[::-1])
    return min(layout.sweep_multiply_adds(ranks), backwards)


def _mps_chain(layout: Layout, ranks: Sequence[int]) -> int:
    """Both halves of an MPS, each merged into one factor or applied core by core."""
    rows = len(layout.row_modes)
    middle = ranks[rows - 1]
    outer_left, outer_right = (1, *ranks[: rows - 1]), (1, *reversed(ranks[rows:]))
    return _half(layout.row_modes, outer_left, middle) + _half(
        layout.column_modes[::-1], outer_right, middle
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
