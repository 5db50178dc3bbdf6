"""Multiplies by a prepared matrix, `start + x @ W.T`, at every step of a loop.

One class for each way of multiplying: by the whole matrix (`DenseProduct`), by two factors
(`FactorProduct`), core by core (`ChainProduct`). None owns a parameter; `matrices.py` does, and
chooses the way.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ttcompress.trains.train import Train


@dataclass(frozen=True, eq=False)
class DenseProduct:
    """Multiply by a matrix (rows, columns) as it is."""

    matrix: Tensor

    def __call__(self, x: Tensor, start: Tensor | None = None) -> Tensor:
        """(batch, columns) -> (batch, rows), added to `start` where there is one."""
        return _add_product(start, x, self.matrix.mT)

    def into(self, out: Tensor, x: Tensor, start: Tensor | None, scratch: Tensor | None) -> None:
        """Like the call, but write the result to `out`; for code without gradients."""
        _write_product(out, start, x, self.matrix.mT)

    def scratch(self, batch: int) -> Tensor | None:
        """The memory that `into` needs besides its result: none."""
        return None


@dataclass(frozen=True, eq=False)
class FactorProduct:
    """Multiply by W = left @ right, kept as the factors of W.T.

    `inner` is right.T (columns, rank), best as a transposed view; `outer` is left.T
    (rank, rows), best contiguous, so that both products stream through memory in order at batch 1.
    """

    inner: Tensor
    outer: Tensor

    def __call__(self, x: Tensor, start: Tensor | None = None) -> Tensor:
        """(batch, columns) -> (batch, rows), added to `start` where there is one."""
        return _add_product(start, x @ self.inner, self.outer)

    def into(self, out: Tensor, x: Tensor, start: Tensor | None, scratch: Tensor | None) -> None:
        """Like the call, but write the result to `out`; `scratch` holds the middle vector."""
        middle = torch.mm(x, self.inner, out=scratch)
        _write_product(out, start, middle, self.outer)

    def scratch(self, batch: int) -> Tensor | None:
        """The memory that `into` needs besides its result: (batch, rank)."""
        return self.inner.new_empty(batch, self.inner.shape[1])


@dataclass(frozen=True, eq=False)
class ChainProduct:
    """Multiply core by core, in the way of the format."""

    train: Train

    def __call__(self, x: Tensor, start: Tensor | None = None) -> Tensor:
        """(batch, columns) -> (batch, rows), added to `start` where there is one."""
        product = self.train.apply(x)
        return product if start is None else start + product

    def into(self, out: Tensor, x: Tensor, start: Tensor | None, scratch: Tensor | None) -> None:
        """Like the call, but write the result to `out`; the contraction still allocates memory."""
        out.copy_(self(x, start))

    def scratch(self, batch: int) -> Tensor | None:
        """The memory that `into` needs besides its result: none that can be reused."""
        return None


Product = DenseProduct | FactorProduct | ChainProduct


def _add_product(start: Tensor | None, x: Tensor, matrix: Tensor) -> Tensor:
    return x @ matrix if start is None else torch.addmm(start, x, matrix)


def _write_product(out: Tensor, start: Tensor | None, x: Tensor, matrix: Tensor) -> None:
    if start is None:
        torch.mm(x, matrix, out=out)
    else:
        torch.addmm(start, x, matrix, out=out)
