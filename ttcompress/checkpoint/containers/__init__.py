"""Takes model files apart, each kind by its own reader: see `registry` for the kinds there are."""

from pathlib import Path

from ttcompress.checkpoint.containers import shards
from ttcompress.checkpoint.containers.registry import read_file
from ttcompress.checkpoint.containers.source import Container, Source

__all__ = ["Container", "Source", "read_container"]


def read_container(path: Path) -> Source:
    """Take a model file, or the index of a sharded model, apart; no tensor is read.

    Raises:
        CheckpointError: empty, damaged, hostile, or no container of PyTorch weights.
        OSError: the file cannot be read.
    """
    return read_file(path, shards)  # not in the registry: an index never leads to another one
