"""A tensor train with its cores: a `Layout` and tensors enter, a matrix leaves.

The sweep that finds the cores is in `tt_svd.py`; number types are in `rounding.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from ttcompress.planning.formats import Layout


@dataclass(frozen=True, eq=False)
class Train:
    """A matrix (rows, columns) as a product of cores; every method is differentiable in them.

    Cores are `(rank, mode, rank)` for an MPS and `(rank, row_mode, column_mode, rank)` for an MPO,
    all of one floating-point type and device. Laws: `apply(x)` equals `x @ to_dense().T`, and
    `params` equals the planned `sum(layout.core_params(ranks))`.
    """

    layout: Layout
    cores: tuple[Tensor, ...]

    def __post_init__(self) -> None:
        found = tuple(tuple(core.shape) for core in self.cores)
        wanted = self.layout.core_shapes(self.ranks)
        if found != wanted:
            raise ValueError(f"cores are {found}, but {self.layout} needs {wanted}")

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

    def to_dense(self) -> Tensor:  # (rows, columns)
        """The matrix: an MPS through its two factors, an MPO by joining cores."""
        if self.layout.format == "mps":
            left, right = self.factors()
            return left @ right
        return matricize(_chain(self.cores), self.layout)

    def factors(self) -> tuple[Tensor, Tensor]:  # (rows, middle rank), (middle rank, columns)
        """The two halves of an MPS merged: W = left @ right."""
        split = len(self.layout.row_modes)
        rows, columns = self.shape
        left = _chain(self.cores[:split]).reshape(rows, -1)
        right = _chain(self.cores[split:]).reshape(-1, columns)
        return left, right

    def apply(self, x: Tensor) -> Tensor:  # (..., columns) -> (..., rows)
        """x @ W.T without building W: through the factors of an MPS, core by core for an MPO."""
        if self.layout.format == "mps":
            left, right = self.factors()
            return (x @ right.mT) @ left.mT
        return _apply_mpo(self.layout, self.cores, x)


def _chain(cores: Sequence[Tensor]) -> Tensor:  # (first rank, product of modes, last rank)
    """Join neighbouring cores into one tensor, their modes flattened."""

    def join(left: Tensor, right: Tensor) -> Tensor:
        product = left.reshape(-1, left.shape[-1]) @ right.reshape(right.shape[0], -1)
        return product.reshape(left.shape[0], -1, right.shape[-1])

    first, *rest = cores
    return reduce(join, rest, first.reshape(first.shape[0], -1, first.shape[-1]))


def _apply_mpo(layout: Layout, cores: Sequence[Tensor], x: Tensor) -> Tensor:
    """Contract x with an MPO, in the cheaper of the two directions."""
    ranks = tuple(core.shape[-1] for core in cores[:-1])
    if layout.sweep_multiply_adds(ranks) <= layout.reversed.sweep_multiply_adds(ranks[::-1]):
        return _sweep_mpo(layout, cores, x)
    batch = x.shape[:-1]
    flipped_x = _flip_modes(x.reshape(-1, x.shape[-1]), layout.column_modes)
    flipped_cores = [core.permute(3, 1, 2, 0) for core in reversed(cores)]
    y = _sweep_mpo(layout.reversed, flipped_cores, flipped_x)
    return _flip_modes(y, layout.row_modes[::-1]).reshape(*batch, layout.shape[0])


def _sweep_mpo(layout: Layout, cores: Sequence[Tensor], x: Tensor) -> Tensor:
    """Each core turns one pending column mode into one row mode.

    The running tensor is (batch, rows done, rank, columns pending).
    """
    batch = x.shape[:-1]
    state = x.reshape(-1, 1, 1, x.shape[-1])
    for core, column in zip(cores, layout.column_modes, strict=True):
        pending = state.shape[-1] // column
        split = state.reshape(*state.shape[:-1], column, pending)
        state = torch.einsum("bdrcp,rmcs->bdmsp", split, core).flatten(1, 2)
    return state.reshape(*batch, layout.shape[0])


def _flip_modes(x: Tensor, modes: Sequence[int]) -> Tensor:  # (batch, columns) -> the same
    """Reverse the order of the modes that the last axis is made of."""
    axes = range(len(modes), 0, -1)
    return x.reshape(-1, *modes).permute(0, *axes).reshape(x.shape)


def tensorize(matrix: Tensor, layout: Layout) -> Tensor:  # (rows, columns) -> layout.sizes
    """The matrix as the tensor whose train is sought: reshaped, and interleaved for an MPO."""
    if layout.format == "mps":
        return matrix.reshape(layout.sizes)
    pairs = len(layout.row_modes)
    interleaved = [axis for k in range(pairs) for axis in (k, pairs + k)]
    tensor = matrix.reshape(*layout.row_modes, *layout.column_modes)
    return tensor.permute(interleaved).reshape(layout.sizes)


def matricize(
    tensor: Tensor, layout: Layout
) -> Tensor:  # any shape of that size -> (rows, columns)
    """The inverse of `tensorize`."""
    if layout.format == "mps":
        return tensor.reshape(layout.shape)
    pairs = list(zip(layout.row_modes, layout.column_modes, strict=True))
    interleaved = tensor.reshape([mode for pair in pairs for mode in pair])
    evens, odds = range(0, 2 * len(pairs), 2), range(1, 2 * len(pairs), 2)
    return interleaved.permute(*evens, *odds).reshape(layout.shape)
