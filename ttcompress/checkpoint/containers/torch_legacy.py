"""Reads pickle files: torch's format before 1.6, and plain pickles.

torch's old format is five pickles (a magic number, a version, the machine, the value, the storage
keys) and then the storages one after another, each with its number of elements in front.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import torch

from ttcompress.checkpoint.containers.foreign import BIG_ENDIAN
from ttcompress.checkpoint.containers.source import Source
from ttcompress.checkpoint.pickle.arrays import numpy_builders
from ttcompress.checkpoint.pickle.builders import BUILDERS, storage_dtype
from ttcompress.checkpoint.pickle.machine import InstructionCount, PickleReader
from ttcompress.checkpoint.pickle.objects import as_text
from ttcompress.checkpoint.tensors import Bytes, MemoryBytes, StoredStorage
from ttcompress.errors import CheckpointError
from ttcompress.system.files import FileBytes

MAGIC = 0x1950A86A20F9469CFC6C
VERSION = 1001
COUNT = struct.Struct("<q")


def owns(head: bytes) -> bool:
    """The instruction that every pickle of protocol 2 and later begins with."""
    return head[:1] == b"\x80"


def read(path: Path) -> Source:
    """Read the structure of a pickle file, but no tensor.

    Raises:
        CheckpointError: damaged, truncated, or hostile.
    """
    storages: dict[str, Bytes] = {}
    spent = InstructionCount()
    load = {"torch.storage._load_from_bytes": partial(_load_from_bytes, storages, spent)}
    with path.open("rb") as file:
        builders = BUILDERS | numpy_builders(storages) | load
        reader = PickleReader(builders, _refuse_storage, spent)
        root = reader.read(file)
        if root != MAGIC:
            return Source("pickle", root, storages, tuple(reader.unloaded))
        frame = _Frame(file, path.stat().st_size, storages, spent, partial(FileBytes, path))
        root, unloaded = frame.read()
        return Source("torch legacy", root, storages, unloaded)


def _load_from_bytes(storages: dict[str, Bytes], spent: InstructionCount, data: bytes) -> Any:
    """Read a storage in a plain pickle, where each is a whole file of the old format."""
    stream, view = io.BytesIO(data), memoryview(data)
    if PickleReader({}, _refuse_storage, spent).read(stream) != MAGIC:
        raise ValueError("a storage in another format")

    def locate(start: int, size: int) -> Bytes:
        return MemoryBytes(view[start : start + size])

    root, _ = _Frame(stream, len(data), storages, spent, locate, f"{len(storages)}:").read()
    return root


def _refuse_storage(identity: Any) -> Any:
    raise ValueError("a storage outside torch's own formats")


@dataclass
class _Frame:
    """What follows the magic number, in a file or inside another pickle.

    `total` is the length of the stream; `locate` gives the bytes at a place in it; `prefix` keeps
    the keys of one frame apart from those of others.
    """

    stream: BinaryIO
    total: int
    storages: dict[str, Bytes]
    spent: InstructionCount
    locate: Callable[[int, int], Bytes]
    prefix: str = ""
    dtypes: dict[str, torch.dtype] = field(default_factory=dict)

    def read(self) -> tuple[Any, tuple[str, ...]]:
        """Read the value and find every storage; return also the classes not loaded."""
        version, machine = self._read_plain(), self._read_plain()
        if version != VERSION or not isinstance(machine, dict):
            raise CheckpointError(
                f"is in torch's old format: expected version {VERSION}, got "
                f"{as_text(version)[:40]}. Load it with the torch that wrote it and save it again."
            )
        if machine.get("little_endian") is False:
            raise CheckpointError(BIG_ENDIAN)
        builders = BUILDERS | numpy_builders(self.storages)
        reader = PickleReader(builders, self.name_storage, self.spent)
        root = reader.read(self.stream)
        keys = self._read_plain()
        if not isinstance(keys, list):
            raise CheckpointError("has no list of its storages. Copy or download the file again.")
        for key in keys:
            self._find_storage(self.prefix + as_text(key))
        if missing := self.dtypes.keys() - self.storages.keys():
            raise CheckpointError(
                f"storage {min(missing)!r} is not in the file. Copy or download the file again."
            )
        return root, tuple(reader.unloaded)

    def _read_plain(self) -> Any:
        return PickleReader({}, _refuse_storage, self.spent).read(self.stream)

    def _find_storage(self, key: str) -> None:
        head, start = self.stream.read(COUNT.size), self.stream.tell()
        dtype = self.dtypes.get(key)
        if dtype is None or len(head) < COUNT.size:
            raise CheckpointError(
                f"ends before storage {key!r}, or does not use it. Copy or download the file again."
            )
        size = COUNT.unpack(head)[0] * dtype.itemsize
        if not 0 <= size <= self.total - start:
            raise CheckpointError(
                f"is truncated: storage {key!r} needs {size} bytes at {start}, but the file has "
                f"only {self.total - start} left. Copy or download the file again."
            )
        self.storages[key] = self.locate(start, size)
        self.stream.seek(start + size)

    def name_storage(self, identity: Any) -> Any:
        """A storage, or the class of a module whose source code was saved with it."""
        if identity[0] == "module":
            return identity[1]
        tag, kind, key, _, numel, *view = identity
        if tag != "storage" or type(numel) is not int or not 0 <= numel < 2**62:
            raise ValueError(f"unknown persistent id {as_text(tag)[:40]!r}")
        key = self.prefix + as_text(key)
        dtype, offset = self.dtypes.setdefault(key, storage_dtype(kind)), 0
        if view and view[0] is not None:
            _, offset, numel = view[0]
            if not all(type(number) is int and 0 <= number < 2**62 for number in (offset, numel)):
                raise ValueError("a view that is not a range of its storage")
        return StoredStorage(key, dtype, numel, offset)
