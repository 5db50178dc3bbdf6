"""Rebuilds the matrix of an MPS or an MPO with tensorly, independently of `Train.to_dense`.

`verify` compares the two. This is the only module that imports tensorly.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorly
from tensorly.tt_matrix import TTMatrix
from tensorly.tt_tensor import TTTensor
from torch import Tensor

from ttcompress.planning.formats import Layout


def mps_matrix(cores: Sequence[Tensor], layout: Layout) -> Tensor:  # (rows, columns), float64
    """The matrix of an MPS in float64; tensorly checks that the cores chain.

    Raises:
        ValueError: the cores are not an MPS of this layout.
    """
    with tensorly.backend_context("pytorch", local_threadsafe=True):
        train = TTTensor([core.double() for core in cores])
        _check_modes(train.shape, layout)
        matrix: Tensor = train.to_tensor()
    return matrix.reshape(layout.shape)


def mpo_matrix(cores: Sequence[Tensor], layout: Layout) -> Tensor:  # (rows, columns), float64
    """The matrix of an MPO in float64; tensorly checks that the cores chain.

    Raises:
        ValueError: the cores are not an MPO of this layout.
    """
    with tensorly.backend_context("pytorch", local_threadsafe=True):
        train = TTMatrix([core.double() for core in cores])
        _check_modes(train.shape, layout)
        matrix: Tensor = train.to_matrix()
    return matrix.reshape(layout.shape)


def _check_modes(found: tuple[int, ...], layout: Layout) -> None:
    modes = layout.row_modes + layout.column_modes
    if found != modes:
        raise ValueError(f"the cores have modes {found}, but the layout has {modes}")
