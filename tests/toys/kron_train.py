"""The toy format's half with tensors. A and B are found by the SVD of the rearranged matrix.

Van Loan and Pitsianis, "Approximation with Kronecker products" (1993).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ttcompress.planning.formats import Layout
from ttcompress.planning.spectrum import Spectrum
from ttcompress.trains.least_squares import alternate
from ttcompress.trains.train import Decomposition, Ranks, Train
from ttcompress.trains.tt_svd import NO_FACTORIZATIONS, Factorizations
from ttcompress.trains.weighting import Weighting


class KronTrain(Train):
    @classmethod
    def decompose(
        cls,
        matrix: Tensor,
        layout: Layout,
        ranks: Ranks,
        weighting: Weighting | None = None,
        known: Factorizations = NO_FACTORIZATIONS,
    ) -> Decomposition:
        wide, (rank,) = matrix.double(), layout.attainable(ranks)
        blocks = wide.reshape(layout.row_modes + layout.column_modes).permute(0, 2, 1, 3)
        u, s, vt = torch.linalg.svd(blocks.reshape(layout.sizes), full_matrices=False)
        halves = u[:, :rank], s[:rank, None] * vt[:rank]
        shapes = layout.core_shapes((rank,))
        cores = tuple(half.reshape(shape) for half, shape in zip(halves, shapes, strict=True))
        train: Train = cls(layout, cores)
        if weighting is not None:
            train = alternate(train, wide, weighting.apply, 2)
        return Decomposition(train, (Spectrum(tuple(s.tolist())),))

    def to_dense(self) -> Tensor:
        return torch.einsum("acr,rbd->abcd", *self.cores).reshape(self.shape)

    def apply(self, x: Tensor) -> Tensor:
        vectors = x.reshape(*x.shape[:-1], *self.layout.column_modes)
        product = torch.einsum("acr,rbd,...cd->...ab", *self.cores, vectors)
        return product.reshape(*x.shape[:-1], self.shape[0])

    def rows(self, indices: Tensor) -> Tensor:
        inner = self.layout.row_modes[1]
        left = self.cores[0].index_select(0, indices // inner)
        right = self.cores[1].index_select(1, indices % inner)
        return torch.einsum("kcr,rkd->kcd", left, right).flatten(1)

    def reference(self) -> Tensor:
        left, right = self.double().cores
        return sum(
            (torch.kron(left[..., r], right[r]) for r in range(len(right))),
            torch.zeros(self.shape, dtype=torch.float64),
        )
