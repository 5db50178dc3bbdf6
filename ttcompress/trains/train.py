"""The base class of matrices written as cores, `Train`: what each format does with its tensors.

The other half of a format is its `Layout`, which describes shapes alone. To make the train of a
layout, use `train_of` in `ttcompress.trains.formats`, the registry.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from ttcompress.planning.formats import Layout
from ttcompress.planning.spectrum import Spectrum
from ttcompress.trains.tt_svd import NO_FACTORIZATIONS, Factorizations
from ttcompress.trains.weighting import Weighting

Ranks = Sequence[int]
"""Interior ranks: one fewer than cores."""

ROWS = 256
"""Rows that are rebuilt together: an error is measured without a copy of the whole matrix."""


@dataclass(frozen=True, eq=False)
class Train(ABC):
    """A matrix (rows, columns) as cores; its results are differentiable in them.

    Cores have the shapes of `layout.core_shapes(ranks)` and are all of one floating-point type and
    device. Laws: `apply(x)` equals `x @ to_dense().T`, `rows(i)` equals `to_dense()[i]`, the matrix
    is linear in each core, and `params` equals the planned `sum(layout.core_params(ranks))`.

    `zero_rows` (rows,) and `zero_columns` (columns,) are boolean masks of what is zero in the
    matrix whatever the cores are, None where there is nothing: padding and dead units stay zero
    although cores are rounded and truncated. A format applies them with `clear`.

    Raises:
        ValueError: the cores have the wrong shapes.
    """

    layout: Layout
    cores: tuple[Tensor, ...]
    zero_rows: Tensor | None = None
    zero_columns: Tensor | None = None

    def __post_init__(self) -> None:
        found = tuple(tuple(core.shape) for core in self.cores)
        wanted = self.layout.core_shapes(self.ranks)
        if found != wanted:
            raise ValueError(f"cores are {found}, but {self.layout} needs {wanted}")

    @classmethod
    @abstractmethod
    def decompose(
        cls,
        matrix: Tensor,  # (rows, columns), floating point
        layout: Layout,
        ranks: Ranks,
        weighting: Weighting | None = None,
        known: Factorizations = NO_FACTORIZATIONS,
    ) -> Decomposition:
        """Find the train nearest to a matrix, in float64 unless the matrix is kept whole.

        Args:
            matrix: that of one weight, or those of several side by side.
            layout: a layout of this format.
            ranks: caps on the interior ranks; those above the attainable are lowered.
            weighting: the cost of errors, if the inputs are known.
            known: factorizations of the matrix that were made before; with a weighting, those by
                `weighted_factorize`.
        """

    @abstractmethod
    def to_dense(self) -> Tensor:  # (rows, columns)
        """The matrix."""

    @abstractmethod
    def apply(self, x: Tensor) -> Tensor:  # (..., columns) -> (..., rows)
        """x @ W.T without building W."""

    @abstractmethod
    def rows(self, indices: Tensor) -> Tensor:  # (count,) -> (count, columns)
        """Rows of the matrix, without building all of it.

        Raises:
            IndexError: an index is negative, or not below the number of rows.
        """

    @abstractmethod
    def reference(self) -> Tensor:  # (rows, columns), float64
        """The matrix by code that is independent of `to_dense`, for `verify`."""

    @property
    def whitening_is_exact(self) -> bool:
        """Whether the SVD of the whitened matrix gives the least cost under a `Weighting`.

        If so, there are at most two cores, and only the last has column modes.
        """
        return False

    def factors(self) -> tuple[Tensor, Tensor] | None:  # (rows, rank), (rank, columns)
        """W = left @ right by merging cores; None in formats that cannot."""
        return None

    def clear(self, matrix: Tensor) -> Tensor:  # (rows, columns) -> the same
        """Set the zero rows and columns of a matrix to zero."""
        return clear_columns(clear_rows(matrix, self.zero_rows), self.zero_columns)

    def blocks(self) -> Iterator[Tensor]:  # (some rows, columns) in float64
        """The matrix from its top to its bottom, `ROWS` rows at a time."""
        yield from torch.split(self.double().to_dense(), ROWS)

    def around(self, index: int) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
        """The matrix as a linear map of one core, the others fixed; and the adjoint of that map."""
        before, after = self.cores[:index], self.cores[index + 1 :]

        def forward(core: Tensor) -> Tensor:  # the core's shape -> (rows, columns)
            return replace(self, cores=(*before, core, *after)).to_dense()

        adjoint = torch.func.vjp(forward, self.cores[index])[1]
        return forward, lambda error: adjoint(error)[0]

    def double(self) -> Self:
        """The same in float64."""
        return replace(self, cores=tuple(core.double() for core in self.cores))

    @property
    def ranks(self) -> tuple[int, ...]:
        """Interior ranks: one fewer than cores."""
        return tuple(core.shape[-1] for core in self.cores[:-1])

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of the matrix."""
        return self.layout.shape

    @property
    def params(self) -> int:
        """Values in all cores."""
        return sum(core.numel() for core in self.cores)


def clear_rows(matrix: Tensor, zero: Tensor | None) -> Tensor:  # (rows, columns), (rows,)
    """Set the rows of a mask to zero."""
    return matrix if zero is None else matrix.masked_fill(zero[:, None], 0.0)


def clear_columns(matrix: Tensor, zero: Tensor | None) -> Tensor:  # (..., columns), (columns,)
    """Set the columns of a mask to zero."""
    return matrix if zero is None else matrix.masked_fill(zero, 0.0)


@dataclass(frozen=True, eq=False)
class Decomposition:
    """A train, and the singular values found at each cut."""

    train: Train
    spectra: tuple[Spectrum, ...]
