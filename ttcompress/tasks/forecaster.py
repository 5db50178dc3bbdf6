"""The task `forecaster`: predicts the positions of four coupled oscillators."""

from __future__ import annotations

import torch

from ttcompress.layers.structure import Structure
from ttcompress.samples import oscillators
from ttcompress.samples.corpus import Split
from ttcompress.tasks.column_files import Series
from ttcompress.tasks.data_files import check_positive
from ttcompress.tasks.forecast import Cutting, SeriesTask, read_forecasting_chain

TRAINED_STEPS = 48
"""The last of a window: each has a forecast in training, 48 times as many as if only the last had.
When measuring only the last step counts, which has seen a whole window.
"""


SPACING = 4
"""Rows between two windows in training, which have most of their forecasts in common."""


class Forecaster(SeriesTask):
    """Forecasts the oscillators' positions: for the sample `forecaster`, or your own model.

    Args:
        structure: of the model: it takes four values in each step, and its outputs are a multiple
            of four.
        batch: windows in a training batch; it does not affect the metrics.

    Raises:
        RecipeError: the structure or an option does not fit.
    """

    name = "forecaster"

    def __init__(self, structure: Structure, *, batch: int = 32) -> None:
        check_positive(self.name, batch=batch)

        def read(split: Split) -> Series:
            values = torch.tensor(oscillators.load(split), dtype=torch.float64)
            return Series(f"task forecaster: {split}", oscillators.NAMES, values)

        super().__init__(
            read_forecasting_chain(structure, self.name, at_each_step=True),
            train=lambda: read("train"),
            held_out=lambda: read("test"),
            window=oscillators.WINDOW,
            horizon=None,
            columns=None,
            target=oscillators.NAMES,
            scaling="standard",
            batch=batch,
            pooling=None,
            training=Cutting(TRAINED_STEPS, SPACING),
            measuring=Cutting(1, 1),
        )
