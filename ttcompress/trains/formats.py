"""Registers the `Train` of each format by name, beside `ttcompress.planning.formats.FORMATS`."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from ttcompress.planning.formats import Layout
from ttcompress.trains.dense import DenseTrain
from ttcompress.trains.mpo import MpoTrain
from ttcompress.trains.mps import MpsTrain
from ttcompress.trains.train import Train

TRAINS: dict[str, type[Train]] = {"mps": MpsTrain, "mpo": MpoTrain, "dense": DenseTrain}


def train_of(
    layout: Layout,
    cores: Iterable[Tensor],
    zero_rows: Tensor | None = None,
    zero_columns: Tensor | None = None,
) -> Train:
    """Make the train of a layout from its cores, with masks of what is zero; see `Train`.

    Raises:
        ValueError: the shapes of the cores are not those of the layout.
    """
    return TRAINS[layout.format](layout, tuple(cores), zero_rows, zero_columns)
