"""The tensor of a dense weight: one core, the matrix itself."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from ttcompress.planning.formats import Layout
from ttcompress.trains.train import ROWS, Decomposition, Ranks, Train
from ttcompress.trains.tt_svd import NOTHING_KNOWN, Known
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
        known: Known = NOTHING_KNOWN,
    ) -> Decomposition:
        """The matrix as it is, in its own type: nothing is lost that a weighting could weigh."""
        return Decomposition(cls(layout, (matrix,)), ())

    @property
    def whitening_is_exact(self) -> bool:
        """There is nothing to whiten."""
        return True

    def to_dense(self) -> Tensor:  # (rows, columns)
        """The core."""
        return self.cores[0]

    def blocks(self) -> Iterator[Tensor]:  # (some rows, columns) in float64
        """As of `Train`, without a wide copy of the matrix."""
        yield from (block.double() for block in torch.split(self.cores[0], ROWS))

    def apply(self, x: Tensor) -> Tensor:  # (..., columns) -> (..., rows)
        """One product."""
        return x @ self.cores[0].mT

    def rows(self, indices: Tensor) -> Tensor:  # (count,) -> (count, columns)
        """A lookup."""
        return functional.embedding(indices, self.cores[0])

    def reference(self) -> Tensor:  # (rows, columns), float64
        """The core: nothing is contracted."""
        return self.cores[0].double()
