"""Some rows of a train's matrix: a `Train` and row numbers enter, the rows leave; nothing more.

The matrix is never built: each row number is written in digits over the row modes, and a digit
picks one slice of its core.
"""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor
from torch.nn import functional

from ttcompress.trains.train import Train


def lookup_rows(train: Train, indices: Tensor) -> Tensor:  # (count,) -> (count, columns)
    """Rows of the matrix, differentiable in the cores.

    Raises:
        IndexError: an index is negative, or not below the number of rows.
    """
    modes = train.layout.row_modes
    state = train.cores[0].new_ones(indices.shape[0], 1, 1)  # (count, columns done, rank)
    for position, (mode, core) in enumerate(zip(modes, train.cores, strict=False)):
        digits = indices // prod(modes[position + 1 :])
        if position:  # not the first, so that an index out of range stays out of range
            digits = digits % mode
        state = torch.einsum("cda,cabe->cdbe", state, _slices(core, digits)).flatten(1, 2)
    if train.layout.format == "mps":
        return state.flatten(1) @ train.factors()[1]
    return state.flatten(1)


def _slices(core: Tensor, digits: Tensor) -> Tensor:  # (count, rank, column mode or 1, rank)
    """The slice of a core that each digit of its row mode picks."""
    by_row = core.movedim(1, 0)  # (row mode, rank, [column mode,] rank)
    slices = functional.embedding(digits, by_row.flatten(1))
    slices = slices.reshape(digits.shape[0], *by_row.shape[1:])
    return slices if core.dim() == 4 else slices.unsqueeze(2)
