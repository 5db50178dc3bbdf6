"""The formats' tensor halves by name: the registry beside `ttcompress.planning.formats.FORMATS`."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from ttcompress.planning.formats import Layout
from ttcompress.trains.dense import DenseTrain
from ttcompress.trains.mpo import MpoTrain
from ttcompress.trains.mps import MpsTrain
from ttcompress.trains.train import Train

TRAINS: dict[str, type[Train]] = {"mps": MpsTrain, "mpo": MpoTrain, "dense": DenseTrain}


def train_of(layout: Layout, cores: Iterable[Tensor]) -> Train:
    """The train of a layout with these cores.

    Raises:
        ValueError: their shapes are not the layout's.
    """
    return TRAINS[layout.format](layout, tuple(cores))
