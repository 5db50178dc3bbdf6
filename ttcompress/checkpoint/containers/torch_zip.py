"""A zip archive by `torch.save` (1.6 and later) or TorchScript enters; its value tree leaves.

TorchScript archives hold their parameters in a `data.pkl` of the same kind, next to code. The code
is never looked at.
"""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

from ttcompress.checkpoint.containers.foreign import foreign_zip
from ttcompress.checkpoint.containers.source import Source
from ttcompress.checkpoint.pickle.arrays import numpy_builders
from ttcompress.checkpoint.pickle.builders import BUILDERS, storage_dtype
from ttcompress.checkpoint.pickle.machine import PickleReader, Spent
from ttcompress.checkpoint.stored import Bytes, DeflatedBytes, FileBytes, StoredStorage
from ttcompress.errors import CheckpointError
from ttcompress.system.text import clip

MAX_EXPANSION = 50
"""How many times its size an archive may unpack to; torch itself stores without compression."""

LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, lengths of the name and of the extra field


def read_zip(path: Path) -> Source:
    """Take a zip checkpoint apart; no tensor is read.

    Raises:
        CheckpointError: damaged, encrypted, too expansive, or an archive of something else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {info.filename: info for info in archive.infolist()}
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise CheckpointError(
            f"a damaged or truncated zip archive ({error}). Copy or download the file again."
        ) from error
    _check_expansion(path, entries)
    pickle = min(
        (name for name in entries if f"/{name}".endswith("/data.pkl")),
        key=lambda name: (name.count("/"), name),
        default=None,
    )
    if pickle is None:
        raise foreign_zip(entries)
    folder = pickle.removesuffix("data.pkl")
    _check_byte_order(path, entries.get(f"{folder}byteorder"))
    storages = _Storages(path, folder, entries)
    builders = BUILDERS | numpy_builders(storages.found)
    reader = PickleReader(builders, storages.persistent, Spent())
    size = entries[pickle].file_size
    root = reader.read(io.BytesIO(locate(path, entries[pickle]).read(0, size)))
    script = f"{folder}constants.pkl" in entries
    return Source(
        container="torchscript" if script else "torch zip",
        root=root,
        storages=storages.found,
        unloaded=tuple(reader.unloaded),
    )


class _Storages:
    """The archive's entries as storages, found as the pickle names them."""

    def __init__(self, path: Path, folder: str, entries: dict[str, zipfile.ZipInfo]) -> None:
        self.path = path
        self.folder = folder
        self.entries = entries
        self.found: dict[str, Bytes] = {}

    def persistent(self, identity: Any) -> StoredStorage:
        """The storage behind ("storage", class, key, location, elements), wherever it lived."""
        tag, kind, key, _, numel = identity
        if tag != "storage" or not isinstance(key, str) or type(numel) is not int:
            raise ValueError(f"unknown persistent id {str(tag)[:40]!r}")
        dtype = storage_dtype(kind)
        entry = self.entries.get(f"{self.folder}data/{key}")
        if entry is None:
            raise ValueError(f"storage {str(key)[:40]!r} is not in the archive")
        if numel * dtype.itemsize > entry.file_size:
            raise ValueError(
                f"storage {key!r} should have {numel * dtype.itemsize} bytes "
                f"and has {entry.file_size}"
            )
        if key not in self.found:
            self.found[key] = locate(self.path, entry)
        return StoredStorage(key, dtype, numel)


def locate(path: Path, entry: zipfile.ZipInfo) -> Bytes:
    """Where an entry's bytes lie: both kinds are read straight from the file.

    Raises:
        CheckpointError: encrypted, compressed in a way that torch never does, or its local header
            does not agree with the directory.
    """
    if entry.flag_bits & 1:
        raise CheckpointError(
            f"entry {clip(entry.filename)!r} is encrypted. "
            "Unpack the archive with its password first."
        )
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise CheckpointError(
            f"entry {clip(entry.filename)!r} is compressed by method {entry.compress_type}, and 0 "
            "and 8 are read. Unpack the archive, and pack it without compression."
        )
    is_stored = entry.compress_type == zipfile.ZIP_STORED
    packed = entry.file_size if is_stored else entry.compress_size
    total, header = path.stat().st_size, entry.header_offset
    if 0 <= header <= total - LOCAL_HEADER.size:
        found = FileBytes(path, header, LOCAL_HEADER.size).read(0, LOCAL_HEADER.size)
        signature, name, extra = LOCAL_HEADER.unpack(found)
        start = header + LOCAL_HEADER.size + name + extra
        if signature == b"PK\x03\x04" and start + packed <= total:
            if is_stored:
                return FileBytes(path, start, packed)
            return DeflatedBytes(path, start, packed, entry.file_size, entry.CRC)
    raise CheckpointError(
        f"entry {clip(entry.filename)!r} is not where the archive's directory says. "
        "Copy or download the file again."
    )


def _check_expansion(path: Path, entries: dict[str, zipfile.ZipInfo]) -> None:
    packed = path.stat().st_size
    unpacked = sum(entry.file_size for entry in entries.values())
    if unpacked > MAX_EXPANSION * packed:
        raise CheckpointError(
            f"unpacks from {packed} to {unpacked} bytes, over {MAX_EXPANSION} times its size: "
            "refused as a zip bomb. Unpack it yourself and save it with torch.save if you trust it."
        )


def _check_byte_order(path: Path, entry: zipfile.ZipInfo | None) -> None:
    if entry is not None and locate(path, entry).read(0, min(entry.file_size, 16)) == b"big":
        raise CheckpointError(
            "was saved on a big-endian machine. Load it with torch.load and save it again here."
        )
