"""The train of an MPO, applied core by core from its cheaper end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ttcompress.planning.formats import MpoLayout
from ttcompress.trains.tensor_train import TensorTrain
from ttcompress.trains.train import clear_columns


@dataclass(frozen=True, eq=False)
class MpoTrain(TensorTrain):
    """Cores (rank, row_mode, column_mode, rank)."""

    layout: MpoLayout

    def apply(self, x: Tensor) -> Tensor:  # (..., columns) -> (..., rows)
        """Contract from the first core to the last or back, whichever is cheaper."""
        y = self._contract(clear_columns(x, self.zero_columns))
        return clear_columns(y, self.zero_rows)

    def _contract(self, x: Tensor) -> Tensor:  # (..., columns) -> (..., rows)
        layout, ranks = self.layout, self.ranks
        if layout.sweep_multiply_adds(ranks) <= layout.reversed.sweep_multiply_adds(ranks[::-1]):
            return _sweep(layout, self.cores, x)
        batch = x.shape[:-1]
        flipped_x = _flip_modes(x.reshape(-1, x.shape[-1]), layout.column_modes)
        flipped_cores = [core.permute(3, 1, 2, 0) for core in reversed(self.cores)]
        y = _sweep(layout.reversed, flipped_cores, flipped_x)
        return _flip_modes(y, layout.row_modes[::-1]).reshape(*batch, layout.shape[0])

    def reference(self) -> Tensor:  # (rows, columns), float64
        """The matrix by tensorly."""
        # tensorly takes a second to import, and only `verify` needs it.
        from ttcompress.trains.reference import mpo_matrix

        return self.clear(mpo_matrix(self.cores, self.layout))


def _sweep(layout: MpoLayout, cores: Sequence[Tensor], x: Tensor) -> Tensor:
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
    """Reverse the order of the modes that make up the last axis."""
    axes = range(len(modes), 0, -1)
    return x.reshape(-1, *modes).permute(0, *axes).reshape(x.shape)
