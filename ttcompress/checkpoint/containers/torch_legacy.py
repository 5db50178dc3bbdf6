"""A pickle file enters: torch's format before 1.6, or a plain pickle; its value tree leaves.

torch's old format is five pickles (a magic number, a version, the machine, the value, the storage
keys) and then the storages one after another, each with its number of elements in front.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch

from ttcompress.checkpoint.containers.source import Source
from ttcompress.checkpoint.pickle.arrays import numpy_builders
from ttcompress.checkpoint.pickle.builders import BUILDERS, storage_dtype
from ttcompress.checkpoint.pickle.machine import PickleReader, Spent
from ttcompress.checkpoint.pickle.objects import Builder
from ttcompress.checkpoint.stored import Bytes, FileBytes, MemoryBytes, StoredStorage
from ttcompress.errors import CheckpointError

MAGIC = 0x1950A86A20F9469CFC6C
VERSION = 1001
COUNT = struct.Struct("<q")


def read_pickles(path: Path) -> Source:
    """Take a pickle file apart; no tensor is read.

    Raises:
        CheckpointError: damaged, truncated, or hostile.
    """
    storages: dict[str, Bytes] = {}
    spent = Spent()
    with path.open("rb") as file:
        reader = PickleReader(_plain_builders(storages, spent), _no_persistent, spent)
        root = reader.read(file)
        if root != MAGIC:
            return Source("pickle", root, storages, tuple(reader.unloaded))
        stream = _LegacyStream(storages, spent, lambda start, size: FileBytes(path, start, size))
        root = stream.read(file, path.stat().st_size)
    return Source("torch legacy", root, storages, tuple(stream.reader.unloaded))


class _LegacyStream:
    """torch's old format behind its magic number, in a file or inside another pickle."""

    def __init__(
        self,
        storages: dict[str, Bytes],
        spent: Spent,
        locate: Callable[[int, int], Bytes],
        prefix: str = "",
    ) -> None:
        self.storages = storages
        self.spent = spent
        self.locate = locate
        self.prefix = prefix
        self.dtypes: dict[str, torch.dtype] = {}
        self.reader = PickleReader(BUILDERS | numpy_builders(storages), self.persistent, spent)

    def read(self, stream: BinaryIO, total: int) -> Any:
        """Read the value and find every storage; `total` is the length of the stream."""
        version = self._read_plain(stream)
        machine = self._read_plain(stream)
        if version != VERSION or not isinstance(machine, dict):
            raise CheckpointError(f"is of torch's old format, version {version!r}, not {VERSION}.")
        if machine.get("little_endian") is False:
            raise CheckpointError(
                "was saved on a big-endian machine. Load it with torch.load and save it again here."
            )
        root = self.reader.read(stream)
        keys = self._read_plain(stream)
        if not isinstance(keys, list):
            raise CheckpointError("has no list of its storages. Copy or download the file again.")
        for key in keys:
            self._find(str(key), stream, total)
        if missing := self.dtypes.keys() - self.storages.keys():
            raise CheckpointError(
                f"storage {min(missing)!r} is not in the file. Copy or download the file again."
            )
        return root

    def _read_plain(self, stream: BinaryIO) -> Any:
        return PickleReader({}, _no_persistent, self.spent).read(stream)

    def _find(self, key: str, stream: BinaryIO, total: int) -> None:
        key = self.prefix + key
        head = stream.read(COUNT.size)
        start = stream.tell()
        dtype = self.dtypes.get(key)
        if dtype is None or len(head) < COUNT.size:
            raise CheckpointError(
                f"ends before storage {key!r}, or does not use it. Copy or download the file again."
            )
        size = COUNT.unpack(head)[0] * dtype.itemsize
        if not 0 <= size <= total - start:
            raise CheckpointError(
                f"is truncated: storage {key!r} needs {size} bytes at {start}, and the file has "
                f"{total - start} left. Copy or download the file again."
            )
        self.storages[key] = self.locate(start, size)
        stream.seek(start + size)

    def persistent(self, identity: Any) -> Any:
        """A storage, or the class of a module whose source code was saved beside it."""
        if identity[0] == "module":
            return identity[1]
        tag, kind, key, _, numel, *view = identity
        if tag != "storage" or type(numel) is not int or numel < 0:
            raise ValueError(f"unknown persistent id {str(tag)[:40]!r}")
        key = self.prefix + str(key)
        dtype = self.dtypes.setdefault(key, storage_dtype(kind))
        if view and view[0] is not None:
            _, offset, numel = view[0]
            if not all(type(number) is int and number >= 0 for number in (offset, numel)):
                raise ValueError("a view of a storage that is no range of it")
            return StoredStorage(key, dtype, numel, offset)
        return StoredStorage(key, dtype, numel)


def _plain_builders(storages: dict[str, Bytes], spent: Spent) -> dict[str, Builder]:
    """The allow-list for a plain pickle, where every torch storage is a whole old-format file."""

    def load_from_bytes(data: bytes) -> Any:
        stream, view = io.BytesIO(data), memoryview(data)
        if PickleReader({}, _no_persistent, spent).read(stream) != MAGIC:
            raise ValueError("a storage of another format")
        nested = _LegacyStream(
            storages,
            spent,
            lambda start, size: MemoryBytes(view[start : start + size]),
            prefix=f"{len(storages)}:",
        )
        return nested.read(stream, len(data))

    return {
        **BUILDERS,
        **numpy_builders(storages),
        "torch.storage._load_from_bytes": load_from_bytes,
    }


def _no_persistent(identity: Any) -> Any:
    raise ValueError("a storage outside torch's own formats")
