"""A matrix written as cores: `Train`, what every format does with its tensors.

The other half of a format is its `Layout`, which knows shapes alone. `ttcompress.trains.formats`
has the registry; `train_of` there makes the right train for a layout.
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
from ttcompress.trains.tt_svd import NOTHING_KNOWN, Known
from ttcompress.trains.weighting import Weighting

Ranks = Sequence[int]
"""Interior ranks: one fewer than cores."""

ROWS = 256
"""Of a matrix that are looked at together: no whole copy of it is needed to measure an error."""


@dataclass(frozen=True, eq=False)
class Train(ABC):
    """A matrix (rows, columns) as cores; what it computes is differentiable in them.

    Cores have the shapes of `layout.core_shapes(ranks)` and are all of one floating-point type and
    device. Laws: `apply(x)` equals `x @ to_dense().T`, `rows(i)` equals `to_dense()[i]`, the matrix
    is linear in each core, and `params` equals the planned `sum(layout.core_params(ranks))`.

    Raises:
        ValueError: the cores have other shapes.
    """

    layout: Layout
    cores: tuple[Tensor, ...]

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
        known: Known = NOTHING_KNOWN,
    ) -> Decomposition:
        """The train nearest to a matrix, in float64 but for a matrix kept whole.

        Args:
            matrix: of one weight, or the matrices of a group side by side.
            layout: of this format.
            ranks: caps on the interior ranks; those above the attainable are lowered.
            weighting: what errors cost, where the inputs are known.
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
        """Rows of the matrix, which is never built.

        Raises:
            IndexError: an index is negative, or not below the number of rows.
        """

    @abstractmethod
    def reference(self) -> Tensor:  # (rows, columns), float64
        """The matrix by code that shares nothing with `to_dense`, for `verify`."""

    @property
    def whitening_is_exact(self) -> bool:
        """Whether the least cost under a `Weighting` follows from the SVD of a whitened matrix.

        Then there are at most two cores, and the last one alone has the columns.
        """
        return False

    def factors(self) -> tuple[Tensor, Tensor] | None:  # (rows, rank), (rank, columns)
        """W = left @ right, where merging cores gives that; None in other formats."""
        return None

    def blocks(self) -> Iterator[Tensor]:  # (some rows, columns) in float64
        """The matrix from its top to its bottom, `ROWS` rows at a time."""
        yield from torch.split(self.double().to_dense(), ROWS)

    def around(self, index: int) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
        """The matrix as a linear function of one core, the others fixed, and its adjoint."""
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


@dataclass(frozen=True, eq=False)
class Decomposition:
    """A train, and the singular values met at each cut."""

    train: Train
    spectra: tuple[Spectrum, ...]
