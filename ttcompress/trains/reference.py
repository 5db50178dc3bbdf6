"""Cores enter, the matrix they make leaves, by tensorly: the oracle beside `Train.to_dense`.

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


def reference_matrix(cores: Sequence[Tensor], layout: Layout) -> Tensor:  # (rows, columns), float64
    """The matrix of a train in float64; tensorly checks that the cores chain.

    Raises:
        ValueError: the cores make no train of this layout.
    """
    modes = layout.row_modes + layout.column_modes
    with tensorly.backend_context("pytorch", local_threadsafe=True):
        wide = [core.double() for core in cores]
        train = TTTensor(wide) if layout.format == "mps" else TTMatrix(wide)
        if train.shape != modes:
            raise ValueError(f"cores have modes {train.shape}, the layout {modes}")
        matrix: Tensor = train.to_tensor() if layout.format == "mps" else train.to_matrix()
    return matrix.reshape(layout.shape)
