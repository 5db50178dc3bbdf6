"""Reads the zip archives of `torch.save` (1.6 and later) and of TorchScript.

TorchScript archives hold their modules in a `data.pkl` of the same kind, next to code that is never
run. Only the lines are read in which a class names its parameters and buffers.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ttcompress.checkpoint.containers.foreign import BIG_ENDIAN
from ttcompress.checkpoint.containers.source import Source
from ttcompress.checkpoint.pickle.arrays import numpy_builders
from ttcompress.checkpoint.pickle.builders import BUILDERS, storage_dtype
from ttcompress.checkpoint.pickle.machine import InstructionCount, PickleReader
from ttcompress.checkpoint.pickle.objects import Builder, Global, ScriptedModule, as_text
from ttcompress.checkpoint.tensors import SLAB, Bytes, StoredStorage
from ttcompress.errors import CheckpointError
from ttcompress.system.files import FileBytes
from ttcompress.system.text import clip

MAX_EXPANSION = 50
"""How many times its size an archive may unpack to; torch itself does not compress."""

MAX_CODE = 64 * 2**20
"""Bytes of TorchScript code that are looked at."""

_FROZEN = (
    "is a TorchScript module without parameters: it was frozen, which makes them constants of its "
    "code. Give the module from before torch.jit.freeze or optimize_for_inference."
)

_CLASS = re.compile(
    r"^class (?P<name>\w+)\(Module\):\n"
    r"  __parameters__ = \[(?P<parameters>[^\]]*)\]\n"
    r"  __buffers__ = \[(?P<buffers>[^\]]*)\]\n",
    re.MULTILINE,
)

LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, lengths of the name and of the extra field

Entries = Mapping[str, zipfile.ZipInfo]


class ForeignZip(Exception):
    """A zip archive without a `data.pkl`; the registry explains what it is instead."""

    def __init__(self, entries: Entries) -> None:
        super().__init__("a zip archive without a data.pkl")
        self.entries = entries


def owns(head: bytes) -> bool:
    """The signature of a first entry, or of an empty archive's directory."""
    return head[:4] in (b"PK\x03\x04", b"PK\x05\x06")


def read(path: Path) -> Source:
    """Read the structure of a zip checkpoint, but no tensor.

    Raises:
        CheckpointError: damaged, encrypted, or a zip bomb.
        ForeignZip: an archive of something else.
    """
    entries = _read_directory(path)
    pickle = min(
        (name for name in entries if f"/{name}".endswith("/data.pkl")),
        key=lambda name: (name.count("/"), name),
        default=None,
    )
    if pickle is None:
        raise ForeignZip(entries)
    folder = pickle.removesuffix("data.pkl")
    order = entries.get(f"{folder}byteorder")
    if order is not None and bytes(locate(path, order).read(0, min(order.file_size, 3))) == b"big":
        raise CheckpointError(BIG_ENDIAN)
    storages: dict[str, Bytes] = {}
    find = partial(_find_storage, path, f"{folder}data/", entries, storages)
    scripted = _scripted_modules(path, entries, f"{folder}code/")
    builders = BUILDERS | numpy_builders(storages) | scripted
    reader = PickleReader(builders, find, InstructionCount())
    content = locate(path, entries[pickle]).read(0, entries[pickle].file_size)
    root = reader.read(io.BytesIO(content))
    unloaded = tuple(reader.unloaded)
    if f"{folder}constants.pkl" in entries:
        return Source("torchscript", root, storages, unloaded, without_weights=_FROZEN)
    return Source("torch zip", root, storages, unloaded)


def _read_directory(path: Path) -> Entries:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {info.filename: info for info in archive.infolist()}
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise CheckpointError(
            f"is a damaged or truncated zip archive ({error}). Copy or download the file again."
        ) from error
    packed = path.stat().st_size
    unpacked = sum(entry.file_size for entry in entries.values())
    if unpacked > MAX_EXPANSION * packed:
        raise CheckpointError(
            f"unpacks from {packed} to {unpacked} bytes, over {MAX_EXPANSION} times its size: "
            "refused as a zip bomb. If you trust it, unpack it and save the model with torch.save."
        )
    return entries


def _scripted_modules(path: Path, entries: Entries, folder: str) -> dict[str, Builder]:
    """Builders of TorchScript's modules, by the classes that its code declares."""
    found: dict[str, Builder] = {}
    left = MAX_CODE
    for name, entry in entries.items():
        module = name.removeprefix(folder).removesuffix(".py").replace("/", ".")
        if name != f"{folder}{module.replace('.', '/')}.py" or not module.startswith("__torch__"):
            continue
        left -= entry.file_size
        if left < 0:
            break
        code = bytes(locate(path, entry).read(0, entry.file_size)).decode("utf-8", "replace")
        for declared in _CLASS.finditer(code):
            names = re.findall(r'"([^"]*)"', declared["parameters"] + declared["buffers"])
            cls = Global(module, declared["name"])
            found[str(cls)] = partial(_scripted_module, cls, frozenset(names))
    return found


def _scripted_module(cls: Global, state_dict: frozenset[str], *args: Any) -> ScriptedModule:
    return ScriptedModule(cls, args, state_dict=state_dict)


def _find_storage(
    path: Path, folder: str, entries: Entries, found: dict[str, Bytes], identity: Any
) -> StoredStorage:
    """The storage behind ("storage", class, key, location, elements), on whatever device it was.

    TorchScript of 2019 adds a sixth element, None, where older files had a view's place.
    """
    tag, kind, key, _, numel, *view = identity
    if tag != "storage" or not isinstance(key, str) or type(numel) is not int or any(view):
        raise ValueError(f"unknown persistent id {as_text(tag)[:40]!r}")
    dtype = storage_dtype(kind)
    entry = entries.get(folder + key)
    if entry is None:
        raise ValueError(f"storage {key[:40]!r} is not in the archive")
    if numel * dtype.itemsize > entry.file_size:
        raise ValueError(
            f"storage {key!r} should have {numel * dtype.itemsize} bytes but has {entry.file_size}"
        )
    if key not in found:
        found[key] = locate(path, entry)
    return StoredStorage(key, dtype, numel)


def locate(path: Path, entry: zipfile.ZipInfo) -> Bytes:
    """Where an entry's bytes lie; stored or deflated, they are read straight from the file.

    Raises:
        CheckpointError: encrypted, compressed in a way that torch never does, or its local header
            does not agree with the directory.
    """
    place = f"entry {clip(entry.filename)!r}"
    if entry.flag_bits & 1:
        raise CheckpointError(f"{place} is encrypted. Unpack the archive with its password first.")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise CheckpointError(
            f"{place} uses compression method {entry.compress_type}, but only 0 and 8 are "
            "supported. Unpack the archive and pack it again without compression."
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
        f"{place} is not where the archive's directory says. Copy or download the file again."
    )


@dataclass(frozen=True)
class DeflatedBytes:
    """A deflated run of bytes in a file: `packed` of them from byte `start` on, `size` of content.

    `crc` is the content's checksum, compared when all of it is read.
    """

    path: Path
    start: int
    packed: int
    size: int
    crc: int

    def read(self, start: int, stop: int) -> bytearray:
        """Decompress up to `stop` and keep what lies after `start`.

        Raises:
            CheckpointError: the compressed data is damaged.
        """
        data = bytearray()
        try:
            for begin, piece in self._pieces(stop):
                data += piece[max(start - begin, 0) : max(stop - begin, 0)]
        except zlib.error as error:
            raise CheckpointError(f"does not decompress ({error}). Copy the file again.") from error
        if len(data) != stop - start:
            raise CheckpointError(
                f"ends early: expected {stop - start} bytes at {start}, got {len(data)}. "
                "Copy the file again."
            )
        if len(data) == self.size and zlib.crc32(data) != self.crc:
            raise CheckpointError(
                "does not match its checksum once decompressed. Copy the file again."
            )
        return data

    def _pieces(self, stop: int) -> Iterator[tuple[int, bytes]]:
        """The content up to `stop`, each piece with where it begins; none is larger than a slab."""
        engine, begin, left = zlib.decompressobj(-zlib.MAX_WBITS), 0, self.packed
        with self.path.open("rb") as file:
            file.seek(self.start)
            while begin < stop and not engine.eof:
                block = engine.unconsumed_tail or file.read(min(left, SLAB))
                left -= 0 if engine.unconsumed_tail else len(block)
                piece = engine.decompress(block, SLAB)
                if not piece and not block:
                    return
                yield begin, piece
                begin += len(piece)
