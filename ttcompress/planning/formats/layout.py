"""The base class of formats, `Layout`: everything that follows from shapes alone.

The other half of a format works on tensors: see `ttcompress.trains.train`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate, pairwise
from math import prod
from typing import Any, ClassVar, Self


@dataclass(frozen=True)
class Layout(ABC):
    """A format with the modes of rows and columns; ranks are given to its methods.

    A format is defined by `core_axes`: which modes each core carries. Neighbouring cores share a
    rank, so core k holds `ranks[k - 1] * sizes[k] * ranks[k]` values. Ranks are interior: one fewer
    than cores. A layout describes a matrix, not the weight it came from, so that the matrices of
    several weights, side by side, can have one too.
    """

    format: ClassVar[str]
    """The name in recipes, reports and artifacts."""
    aliases: ClassVar[tuple[str, ...]] = ()
    """Other names of it, accepted on the command line only."""
    decomposes: ClassVar[bool] = True
    """Whether there are ranks to choose. If not, the only core is the matrix itself."""
    cost_model: ClassVar[str] = ""
    """How parameters and multiply-adds are counted, in one line for reports."""

    row_modes: tuple[int, ...]
    column_modes: tuple[int, ...]

    @classmethod
    @abstractmethod
    def candidates(cls, shape: tuple[int, int], gates: int = 1) -> tuple[Self, ...]:
        """The layouts to try for a matrix of this shape, whose rows are `gates` blocks.

        The error at the budget decides among them, not how even the modes look: on trained weights
        few long modes often beat many short ones.
        """

    @classmethod
    def check_modes(cls, row_modes: Sequence[int], column_modes: Sequence[int]) -> None:
        """Refuse modes that a recipe must not give this format.

        Raises:
            RecipeError: with the fact and the cure.
        """
        return  # any modes will do

    @property
    @abstractmethod
    def core_axes(self) -> tuple[tuple[int, ...], ...]:
        """The modes in each core, as indices into `row_modes + column_modes`.

        Raises:
            ValueError: these modes do not make this format.
        """

    @abstractmethod
    def count_multiply_adds(self, ranks: tuple[int, ...]) -> int:
        """Multiply-adds of W @ x through the cores; `chain_multiply_adds` caches the results."""

    @cached_property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of the matrix."""
        return prod(self.row_modes), prod(self.column_modes)

    @cached_property
    def core_modes(self) -> tuple[tuple[int, ...], ...]:
        """The modes in each core."""
        modes = self.row_modes + self.column_modes
        return tuple(tuple(modes[axis] for axis in axes) for axes in self.core_axes)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """How many values a slice of each core has: the product of its modes."""
        return tuple(map(prod, self.core_modes))

    @property
    def cores(self) -> int:
        """How many cores."""
        return len(self.core_axes)

    @property
    def middle(self) -> int | None:
        """Index of the rank that is the rank of the matrix; None if there is no such rank."""
        return None

    @cached_property
    def cuts(self) -> tuple[tuple[int, int], ...]:
        """The unfolding between each core and the next, as (row prefix, column prefix)."""
        modes, rows = self.row_modes + self.column_modes, len(self.row_modes)
        steps = [
            (
                prod(modes[axis] for axis in axes if axis < rows),
                prod(modes[axis] for axis in axes if axis >= rows),
            )
            for axes in self.core_axes
        ]
        prefixes = accumulate(steps, lambda done, step: (done[0] * step[0], done[1] * step[1]))
        return tuple(prefixes)[:-1]

    @cached_property
    def full_ranks(self) -> tuple[int, ...]:
        """The largest ranks that any matrix of this layout can need."""
        total = prod(self.shape)
        return tuple(min(row * column, total // (row * column)) for row, column in self.cuts)

    def attainable(self, ranks: Sequence[int]) -> tuple[int, ...]:
        """Lower each rank to what the cores can reach: a neighbour's rank times the modes between.

        >>> from ttcompress.planning.formats import MpsLayout
        >>> MpsLayout((2, 2), (2, 2)).attainable((8, 8, 8))
        (2, 4, 2)
        >>> MpsLayout((2, 2), (2, 2)).attainable((1, 4, 2))
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
        """Shape of every core; the last axis of each but the last core is the rank after it."""
        edges = pairwise((1, *ranks, 1))
        return tuple((a, *modes, b) for modes, (a, b) in zip(self.core_modes, edges, strict=True))

    def core_params(self, ranks: Sequence[int]) -> tuple[int, ...]:
        """How many values every core has."""
        edges = pairwise((1, *ranks, 1))
        return tuple(a * size * b for size, (a, b) in zip(self.sizes, edges, strict=True))

    @property
    def core_names(self) -> tuple[str, ...]:
        """The name of each core in an artifact, after the weight's name and a dot."""
        return tuple(f"cores.{k}" for k in range(self.cores))

    def chain_multiply_adds(self, ranks: Sequence[int]) -> int:
        """Multiply-adds of W @ x through the cores, never through the dense matrix."""
        return _count_multiply_adds(self, tuple(ranks))

    def rebuilding_rank(self, ranks: Sequence[int]) -> int:
        """How many multiply-adds each value of the matrix takes when it is rebuilt."""
        return max(ranks, default=1) if self.middle is None else ranks[self.middle]

    def multiply_adds(self, ranks: Sequence[int], *, lookup: bool = False) -> int:
        """Multiply-adds of W @ x by the cheapest order; one of them is to rebuild W first.

        With `lookup`, those of rebuilding one row.
        """
        if lookup:
            return self.rebuilding_rank(ranks) * self.shape[1]
        return min(self.chain_multiply_adds(ranks), prod(self.shape))

    def as_json(self) -> dict[str, Any]:
        """The fields that reports and artifacts store."""
        return {
            "format": self.format,
            "row_modes": self.row_modes,
            "column_modes": self.column_modes,
        }


@lru_cache(maxsize=1 << 16)  # allocation asks for the same ranks at many weights, stores and prices
def _count_multiply_adds(layout: Layout, ranks: tuple[int, ...]) -> int:
    return layout.count_multiply_adds(ranks)
