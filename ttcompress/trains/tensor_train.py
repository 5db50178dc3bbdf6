"""The base class of MPS and MPO: cores chained by their ranks, found by TT-SVD.

An MPO is the same train on the interleaved tensor, so only the contraction with a vector and the
order of the modes differ; see `mps.py` and `mpo.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from math import prod
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from ttcompress.planning.formats import Layout
from ttcompress.trains.least_squares import alternate
from ttcompress.trains.train import Decomposition, Ranks, Train, clear_columns, clear_rows
from ttcompress.trains.tt_svd import NO_FACTORIZATIONS, Factorizations, matricize, tensorize, tt_svd
from ttcompress.trains.weighting import Weighting

SWEEPS = 2
"""Sweeps of alternating least squares over all cores; more change the error by less than 1 %."""


class TensorTrain(Train):
    """Cores (rank, modes..., rank), each multiplied with the next over the rank between them."""

    @classmethod
    def decompose(
        cls,
        matrix: Tensor,
        layout: Layout,
        ranks: Ranks,
        weighting: Weighting | None = None,
        known: Factorizations = NO_FACTORIZATIONS,
    ) -> Decomposition:
        """Decompose by TT-SVD: all cores but the last are left-orthogonal."""
        if weighting is not None:
            return cls._decompose_weighted(matrix.double(), layout, ranks, weighting, known)
        cores, spectra = tt_svd(matrix, layout, ranks, known)
        return Decomposition(cls(layout, cores), spectra)

    @classmethod
    def _decompose_weighted(
        cls, wide: Tensor, layout: Layout, ranks: Ranks, weighting: Weighting, known: Factorizations
    ) -> Decomposition:
        """Minimise the cost: TT-SVD for a start, then alternating least squares.

        TT-SVD uses the part of the weighting that is diagonal and a product over the modes, because
        the full one would multiply the ranks. The spectra are those of this TT-SVD.
        """
        rows = _product_of_modes(weighting.rows.sqrt(), layout.row_modes)
        columns = _product_of_modes(weighting.moment.diagonal().sqrt(), layout.column_modes)
        scaled = reduce(torch.kron, rows)[:, None] * wide * reduce(torch.kron, columns)
        cores, spectra = tt_svd(scaled, layout, ranks)
        train = cls(layout, cores)._divide([*rows, *columns])
        return Decomposition(alternate(train, wide, weighting.apply, SWEEPS), spectra)

    def to_dense(self) -> Tensor:  # (rows, columns)
        """Join the cores from the first to the last."""
        return self.clear(matricize(join_cores(self.cores), self.layout))

    def rows(self, indices: Tensor) -> Tensor:  # (count,) -> (count, columns)
        """As `slice_rows`, where the cores with row modes are all there are."""
        return clear_columns(self.slice_rows(indices), self.zero_columns)

    def slice_rows(self, indices: Tensor) -> Tensor:  # (count,) -> (count, columns * rank)
        """Write row numbers in digits over the row modes; each digit picks a slice of its core."""
        modes = self.layout.row_modes
        state = self.cores[0].new_ones(indices.shape[0], 1, 1)  # (count, columns done, rank)
        for position, (mode, core) in enumerate(zip(modes, self.cores, strict=False)):
            digits = indices // prod(modes[position + 1 :])
            if position:  # not the first, so that an index out of range stays out of range
                digits = digits % mode
            state = torch.einsum("cda,cabe->cdbe", state, _slices(core, digits)).flatten(1, 2)
        return clear_rows(
            state.flatten(1), None if self.zero_rows is None else self.zero_rows[indices]
        )

    def around(self, index: int) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
        """As in `Train`: one product with the cores left of it, and one with those right of it."""
        core, one = self.cores[index], self.cores[0].new_ones(1, 1)

        def join(left: Tensor, core: Tensor) -> Tensor:
            return (left @ core.reshape(core.shape[0], -1)).reshape(-1, core.shape[-1])

        def join_right(right: Tensor, core: Tensor) -> Tensor:
            return (core.reshape(-1, core.shape[-1]) @ right).reshape(core.shape[0], -1)

        left = reduce(join, self.cores[:index], one)  # (modes before, rank)
        right = reduce(join_right, reversed(self.cores[index + 1 :]), one)  # (rank, modes after)

        def forward(values: Tensor) -> Tensor:  # the core's shape -> (rows, columns)
            middle = left @ values.reshape(left.shape[1], -1)
            return matricize(middle.reshape(-1, right.shape[0]) @ right, self.layout)

        def adjoint(error: Tensor) -> Tensor:  # the inverse way
            tensor = tensorize(error, self.layout).reshape(-1, right.shape[1]) @ right.mT
            return (left.mT @ tensor.reshape(left.shape[0], -1)).reshape(core.shape)

        return forward, adjoint

    def _divide(self, scales: Sequence[Tensor]) -> Self:
        """Divide the matrix by a scale along each of its modes, those of the rows first."""
        cores = []
        for core, axes in zip(self.cores, self.layout.core_axes, strict=True):
            scale = reduce(lambda done, axis: done[..., None] * scales[axis], axes, torch.ones(()))
            cores.append(core / scale[..., None])
        return replace(self, cores=tuple(cores))


def join_cores(cores: Sequence[Tensor]) -> Tensor:  # (first rank, product of modes, last rank)
    """Join neighbouring cores into one tensor, their modes flattened."""

    def join(left: Tensor, right: Tensor) -> Tensor:
        product = left.reshape(-1, left.shape[-1]) @ right.reshape(right.shape[0], -1)
        return product.reshape(left.shape[0], -1, right.shape[-1])

    first, *rest = cores
    return reduce(join, rest, first.reshape(first.shape[0], -1, first.shape[-1]))


def _product_of_modes(scale: Tensor, modes: tuple[int, ...]) -> list[Tensor]:
    """Factors along each mode whose outer product is nearest to a scale, in the logarithm.

    The least squares fit of a sum over modes is marginal means: with n modes, the logarithm of
    factor k is the mean over the other modes, less (1 - 1/n) of the total mean.
    """
    logs = scale.log().reshape(modes)
    mean = logs.mean()
    factors = []
    for k in range(len(modes)):
        others = [axis for axis in range(len(modes)) if axis != k]
        marginal = logs.mean(dim=others) if others else logs
        factors.append((marginal - mean * (1 - 1 / len(modes))).exp())
    return factors


def _slices(core: Tensor, digits: Tensor) -> Tensor:  # (count, rank, column mode or 1, rank)
    """The slice of a core that each digit of its row mode picks."""
    by_row = core.movedim(1, 0)  # (row mode, rank, [column mode,] rank)
    slices = functional.embedding(digits, by_row.flatten(1))
    slices = slices.reshape(digits.shape[0], *by_row.shape[1:])
    return slices if core.dim() == 4 else slices.unsqueeze(2)
