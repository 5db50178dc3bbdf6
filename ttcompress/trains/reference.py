"""The matrix of an MPS or an MPO by tensorly: the oracle beside `Train.to_dense`.

The one module that names tensorly. Its code shares nothing with this package's own contraction, so
that `verify` can hold one against the other.
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
        ValueError: the cores make no MPS of this layout.
    """
    with tensorly.backend_context("pytorch", local_threadsafe=True):
        train = TTTensor([core.double() for core in cores])
        _check_modes(train.shape, layout)
        matrix: Tensor = train.to_tensor()
    return matrix.reshape(layout.shape)


def mpo_matrix(cores: Sequence[Tensor], layout: Layout) -> Tensor:  # (rows, columns), float64
    """The matrix of an MPO in float64; tensorly checks that the cores chain.

    Raises:
        ValueError: the cores make no MPO of this layout.
    """
    with tensorly.backend_context("pytorch", local_threadsafe=True):
        train = TTMatrix([core.double() for core in cores])
        _check_modes(train.shape, layout)
        matrix: Tensor = train.to_matrix()
    return matrix.reshape(layout.shape)


def _check_modes(found: tuple[int, ...], layout: Layout) -> None:
    modes = layout.row_modes + layout.column_modes
    if found != modes:
        raise ValueError(f"cores have modes {found}, the layout {modes}")
