"""The train of an MPS, whose halves merge into two factors: W = left @ right."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ttcompress.planning.formats import Layout
from ttcompress.trains.tensor_train import TensorTrain, join_cores
from ttcompress.trains.train import ROWS, Decomposition, Ranks, clear_columns, clear_rows
from ttcompress.trains.tt_svd import Factorizations, tt_svd
from ttcompress.trains.weighting import Weighting


class MpsTrain(TensorTrain):
    """Cores (rank, mode, rank)."""

    @classmethod
    def _decompose_weighted(
        cls, wide: Tensor, layout: Layout, ranks: Ranks, weighting: Weighting, known: Factorizations
    ) -> Decomposition:
        """With two cores, decompose the whitened matrix, which is exact.

        |D^(1/2) (W - V) C^(1/2)| is least if D^(1/2) V C^(1/2) is the truncated SVD of
        D^(1/2) W C^(1/2); the inverse roots are then multiplied into the two cores.
        """
        if layout.cores != 2:
            return super()._decompose_weighted(wide, layout, ranks, weighting, known)
        (left, right), spectra = tt_svd(weighting.whiten(wide), layout, ranks, known)
        inverse, tall = weighting.roots[1], weighting.rows.sqrt()[:, None]
        cores = (left / tall[None], (right[..., 0] @ inverse)[..., None])
        return Decomposition(cls(layout, cores), spectra)

    @property
    def whitening_is_exact(self) -> bool:
        """True for two cores; in a longer train a full second moment would multiply the ranks."""
        return len(self.cores) == 2

    def factors(self) -> tuple[Tensor, Tensor]:  # (rows, middle rank), (middle rank, columns)
        """The two halves, merged."""
        split = len(self.layout.row_modes)
        rows, columns = self.shape
        left = join_cores(self.cores[:split]).reshape(rows, -1)
        right = join_cores(self.cores[split:]).reshape(-1, columns)
        return clear_rows(left, self.zero_rows), clear_columns(right, self.zero_columns)

    def to_dense(self) -> Tensor:  # (rows, columns)
        """The product of the factors."""
        left, right = self.factors()
        return left @ right

    def blocks(self) -> Iterator[Tensor]:  # (some rows, columns) in float64
        """As in `Train`, without the whole matrix."""
        left, right = self.double().factors()
        yield from (block @ right for block in torch.split(left, ROWS))

    def apply(self, x: Tensor) -> Tensor:  # (..., columns) -> (..., rows)
        """x @ W.T by the two factors."""
        left, right = self.factors()
        return (x @ right.mT) @ left.mT

    def rows(self, indices: Tensor) -> Tensor:  # (count,) -> (count, columns)
        """The requested rows of the left factor, times the right one."""
        return self.slice_rows(indices) @ self.factors()[1]

    def reference(self) -> Tensor:  # (rows, columns), float64
        """The matrix by tensorly."""
        # tensorly takes a second to import, and only `verify` needs it.
        from ttcompress.trains.reference import mps_matrix

        return self.clear(mps_matrix(self.cores, self.layout))
