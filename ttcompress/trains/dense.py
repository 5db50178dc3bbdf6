"""The train of a dense weight: a single core, the matrix itself."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from ttcompress.planning.formats import Layout
from ttcompress.trains.train import ROWS, Decomposition, Ranks, Train
from ttcompress.trains.tt_svd import NO_FACTORIZATIONS, Factorizations
from ttcompress.trains.weighting import Weighting


class DenseTrain(Train):
    """One core (rows, columns)."""

    @classmethod
    def decompose(
        cls,
        matrix: Tensor,
        layout: Layout,
        ranks: Ranks,
        weighting: Weighting | None = None,
        known: Factorizations = NO_FACTORIZATIONS,
    ) -> Decomposition:
        """Return the matrix unchanged, in its own type; there is no error to weight."""
        return Decomposition(cls(layout, (matrix,)), ())

    @property
    def whitening_is_exact(self) -> bool:
        """True: there is nothing to whiten."""
        return True

    def to_dense(self) -> Tensor:  # (rows, columns)
        """The core."""
        return self.cores[0]

    def blocks(self) -> Iterator[Tensor]:  # (some rows, columns) in float64
        """As in `Train`, without a float64 copy of the whole matrix."""
        yield from (block.double() for block in torch.split(self.cores[0], ROWS))

    def apply(self, x: Tensor) -> Tensor:  # (..., columns) -> (..., rows)
        """One product."""
        return x @ self.cores[0].mT

    def rows(self, indices: Tensor) -> Tensor:  # (count,) -> (count, columns)
        """A lookup."""
        return functional.embedding(indices, self.cores[0])

    def reference(self) -> Tensor:  # (rows, columns), float64
        """The core: there is nothing to contract."""
        return self.cores[0].double()
