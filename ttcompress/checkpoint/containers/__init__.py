"""Reads the structure of model files; `registry` lists the kinds, one reader for each."""

from pathlib import Path

from ttcompress.checkpoint.containers import shards
from ttcompress.checkpoint.containers.registry import read_file
from ttcompress.checkpoint.containers.source import Container, Source

__all__ = ["Container", "Source", "read_container"]


def read_container(path: Path) -> Source:
    """Read the structure of a model file or of a sharded model's index, but no tensor.

    Raises:
        CheckpointError: empty, damaged, hostile, or not a container of PyTorch weights.
        OSError: the file cannot be read.
    """
    return read_file(path, shards)  # not in the registry: an index never leads to another one
