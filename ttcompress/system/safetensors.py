"""Reads and writes safetensors files.

The format: the header's length as 8 bytes little-endian, the header as JSON, the data. The header
gives each tensor's number type, shape, and range in the data; the ranges cover it, without overlap.

The safetensors library is used for neither. Its reader maps files into memory: if a file is cut
short meanwhile, a signal ends the program, and if it is rewritten, tensors already read change. Its
writer keeps metadata in a hash map whose order changes from run to run, and builds the whole file
in memory. Here tensors are sorted by item size (which keeps every one of them aligned) and name, so
that the same content is always the same bytes.
"""

from __future__ import annotations

import json
import struct
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ttcompress.errors import CheckpointError, OutputError
from ttcompress.system.files import FileBytes
from ttcompress.system.json import read_json
from ttcompress.system.late import torch
from ttcompress.system.stamps import Stamp, check_unchanged
from ttcompress.system.text import clip

if TYPE_CHECKING:
    from torch import Tensor

DTYPES: Mapping[str, tuple[str, int]] = {
    "F64": ("float64", 8),
    "F32": ("float32", 4),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "F8_E4M3": ("float8_e4m3fn", 1),
    "F8_E5M2": ("float8_e5m2", 1),
    "C64": ("complex64", 8),
    "I64": ("int64", 8),
    "I32": ("int32", 4),
    "I16": ("int16", 2),
    "I8": ("int8", 1),
    "U64": ("uint64", 8),
    "U32": ("uint32", 4),
    "U16": ("uint16", 2),
    "U8": ("uint8", 1),
    "BOOL": ("bool", 1),
}
"""The number types that a file can hold, by their names in its header: torch's name, and bytes.

Not torch's types themselves: a header is read without torch.
"""

LENGTH = struct.Struct("<Q")

MAX_HEADER = 100_000_000
"""Bytes; a limit of the format."""

MAX_DIMENSIONS = 64
"""Of a tensor; a limit of torch."""

COPIED = 2**20
"""Bytes that are copied at a time."""

RESERVED = "__metadata__"
"""The only name in a header that a tensor cannot have."""

ARTIFACT = "ttcompress"
"""The key of the metadata that identifies an artifact of ttcompress."""

_NAMES = {f"torch.{dtype}": name for name, (dtype, _) in DTYPES.items()}


@dataclass(frozen=True)
class Entry:
    """A tensor as the header describes it, with its bytes still in the file.

    `kind` is one of `DTYPES`.
    """

    kind: str
    shape: tuple[int, ...]
    data: FileBytes

    @property
    def dtype(self) -> torch.dtype:
        """The type of its values."""
        found: torch.dtype = getattr(torch, DTYPES[self.kind][0])
        return found

    def read(self) -> Tensor:
        """Read the tensor into new memory."""
        if not self.data.size:
            return torch.empty(self.shape, dtype=self.dtype)
        return torch.frombuffer(self.data.read(0, self.data.size), dtype=self.dtype).view(
            self.shape
        )

    def part(self, index: tuple[int, ...], rows: slice) -> Tensor:
        """Read `tensor[index][rows]` and no more; it lies in one piece."""
        below = self.shape[len(index) :]
        first = 0
        for position, size in zip(index, self.shape, strict=False):
            first = first * size + position
        row = prod(below[1:]) * self.dtype.itemsize
        start, stop = ((first * below[0] + end) * row for end in (rows.start, rows.stop))
        found = torch.frombuffer(self.data.read(start, stop), dtype=self.dtype)
        return found.view(rows.stop - rows.start, *below[1:])


@dataclass(frozen=True)
class Contents:
    """What a safetensors file holds: text by key, and tensors by name in the order of the bytes.

    `stamps` holds the state of the file before its header was read.
    """

    metadata: Mapping[str, str]
    tensors: Mapping[str, Entry]
    stamps: Mapping[Path, Stamp]

    def read(self) -> dict[str, Tensor]:
        """Read all tensors, each into new memory.

        Raises:
            CheckpointError: the file ends early.
            TTCompressError: the file was changed since its header was read.
            OSError: the file cannot be read.
        """
        tensors = {name: entry.read() for name, entry in self.tensors.items()}
        check_unchanged(self.stamps)
        return tensors


def open_safetensors(path: Path) -> Contents:
    """Read the header of a safetensors file, and check it against the file's length.

    Raises:
        CheckpointError: damaged or truncated.
        OSError: the file cannot be read.
    """
    stamp = Stamp.of(path)
    total = stamp.size
    (length,) = LENGTH.unpack(FileBytes(path, 0, LENGTH.size).read(0, LENGTH.size))
    start = LENGTH.size + length
    if length > MAX_HEADER or start > total:
        raise CheckpointError(
            f"is truncated: its header should have {length} bytes, but the file has {total}. "
            "Copy or download the file again."
        )
    try:
        header = read_json(bytes(FileBytes(path, LENGTH.size, length).read(0, length)))
    except ValueError as error:
        raise CheckpointError(
            f"its safetensors header is damaged ({clip(str(error))}). Copy the file again."
        ) from error
    if not isinstance(header, dict):
        raise CheckpointError(
            "its safetensors header is not a table of tensors. Copy the file again."
        )
    metadata = header.pop(RESERVED, {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise CheckpointError(
            "its safetensors metadata is not a table of text. Copy the file again."
        )
    data = FileBytes(path, start, total - start)
    entries = {name: _read_entry(name, claim, data) for name, claim in header.items()}
    in_order = sorted(entries.items(), key=lambda e: (e[1].data.start, e[1].data.size, e[0]))
    _check_cover(in_order, data)
    return Contents(metadata, dict(in_order), {path: stamp})


def _read_entry(name: str, claim: Any, data: FileBytes) -> Entry:
    """Read one entry of the header, and check it against the size of the data."""
    try:
        kind, shape, (begin, end) = claim["dtype"], claim["shape"], claim["data_offsets"]
        _, item_bytes = DTYPES[kind]
        if not all(type(number) is int and number >= 0 for number in (*shape, begin, end)):
            raise ValueError("a size that is not a whole number")
        if len(shape) > MAX_DIMENSIONS:
            raise ValueError(f"a tensor of {len(shape)} dimensions")
    except (KeyError, TypeError, ValueError) as error:
        kind = claim.get("dtype") if isinstance(claim, Mapping) else claim
        raise CheckpointError(
            f"{clip(name)}: not a tensor that ttcompress can read ({clip(str(kind), 40)}). "
            "Save it in float32, or copy the file again if it is damaged."
        ) from error
    shape = tuple(shape)
    if end > data.size or end - begin != prod(shape) * item_bytes:
        raise CheckpointError(
            f"{clip(name)}: shape {shape} does not fit its bytes {begin} to {end} of {data.size}. "
            "The file is damaged or truncated; copy or download it again."
        )
    return Entry(kind, shape, FileBytes(data.path, data.start + begin, end - begin))


def _check_cover(in_order: list[tuple[str, Entry]], data: FileBytes) -> None:
    """Refuse overlaps: a few bytes that a million tensors share could claim any memory."""
    end = 0
    for name, entry in in_order:
        begin = entry.data.start - data.start
        if begin != end:
            what = "overlaps the tensor before it" if begin < end else "leaves a gap before it"
            raise CheckpointError(
                f"{clip(name)}: {what} (it begins at byte {begin}, but that one ends at {end}). "
                "The file is damaged; copy or download it again."
            )
        end += entry.data.size
    if end != data.size:
        raise CheckpointError(
            f"its tensors end at byte {end} of {data.size}. Copy or download the file again."
        )


def can_hold(dtype: torch.dtype) -> bool:
    """Whether a file can hold values of this type."""
    return str(dtype) in _NAMES


def write_safetensors(
    file: BinaryIO, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Write the header, then the tensors one by one.

    Raises:
        OutputError: the header is longer than the format allows.
    """
    file.write(_header(tensors, metadata))
    for name in _order(tensors):
        file.write(_bytes_of(tensors[name]))


class Spool:
    """Tensors that wait on disk until all are known, since a file's header comes first.

    Only one tensor is in memory at a time. The temporary file is gone when the block ends.

    Args:
        folder: for the temporary file; best that of the final one.
    """

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # closed by __exit__
        self._facts: dict[str, Tensor] = {}  # on the device "meta": types and shapes, no values
        self._starts: dict[str, int] = {}
        self.bytes = 0

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, name: str, tensor: Tensor) -> None:
        """Write a tensor to the temporary file."""
        self._facts[name] = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
        self._starts[name] = self.bytes
        self._file.write(_bytes_of(tensor))
        self.bytes += tensor.nbytes

    def write(self, file: BinaryIO, metadata: Mapping[str, str]) -> None:
        """Write all tensors as `write_safetensors` would."""
        file.write(_header(self._facts, metadata))
        for name in _order(self._facts):
            self._file.seek(self._starts[name])
            left = self._facts[name].nbytes
            while left:
                left -= file.write(self._file.read(min(left, COPIED)))


def file_size(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> int:
    """How many bytes `write_safetensors` will write."""
    return len(_header(tensors, metadata)) + sum(tensor.nbytes for tensor in tensors.values())


def _bytes_of(tensor: Tensor) -> memoryview | bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else b""


def _header(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    entries: dict[str, object] = {RESERVED: dict(sorted(metadata.items()))}
    offset = 0
    for name in _order(tensors):
        end = offset + tensors[name].nbytes
        entries[name] = {
            "dtype": _NAMES[str(tensors[name].dtype)],
            "shape": list(tensors[name].shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        raise OutputError(
            f"names and metadata take {len(text):,} bytes, but a safetensors header has at most "
            f"{MAX_HEADER:,}. Keep the vocabulary in a separate file beside the model."
        )
    return LENGTH.pack(len(text)) + text


def _order(tensors: Mapping[str, Tensor]) -> list[str]:
    return sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
