"""A safetensors file enters; its flat state dict leaves, in the order of the bytes.

The format: the header's length as 8 bytes little-endian, the header as JSON, the data. The header
gives each tensor's number type, shape, and range in the data.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ttcompress.checkpoint.source import Source
from ttcompress.checkpoint.stored import Bytes, FileBytes, StoredTensor, contiguous_stride
from ttcompress.errors import CheckpointError

LENGTH = struct.Struct("<Q")
MAX_HEADER = 100_000_000  # bytes; the format's own limit

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "C64": torch.complex64,
}


def read_safetensors(path: Path) -> Source:
    """Take a safetensors file apart; no tensor is read.

    Raises:
        CheckpointError: damaged, truncated, or a ttcompress artifact.
    """
    header, start = _header(path)
    metadata = header.pop("__metadata__", {})
    if isinstance(metadata, dict) and "ttcompress" in metadata:
        raise CheckpointError(
            "is already compressed. Use `ttcompress restore` to get its dense weights back, "
            "`ttcompress evaluate` or `ttcompress report` to judge it."
        )
    size = path.stat().st_size - start
    found = sorted((_tensor(name, claim, size) for name, claim in header.items()), key=_by_place)
    tensors = {name: stored for name, stored, _ in found}
    storages: dict[str, Bytes] = {
        name: FileBytes(path, start + begin, stored.bytes) for name, stored, begin in found
    }
    unknown = sorted(set(metadata) - {"format"}) if isinstance(metadata, dict) else []
    notes = (f"metadata not carried: {', '.join(unknown)[:200]}",) if unknown else ()
    return Source("safetensors", tensors, storages, (path,), notes=notes)


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """The header, and the byte where the data begins."""
    total = path.stat().st_size
    length = LENGTH.unpack(FileBytes(path, 0, LENGTH.size).read(0, LENGTH.size))[0]
    start = LENGTH.size + length
    if length > MAX_HEADER or start > total:
        raise CheckpointError(
            f"is truncated: its header should have {length} bytes, and the file has {total}. "
            "Copy or download the file again."
        )
    try:
        header = json.loads(FileBytes(path, LENGTH.size, length).read(0, length))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"its safetensors header is damaged ({str(error)[:80]}). Copy the file again."
        ) from error
    if not isinstance(header, dict):
        raise CheckpointError("its safetensors header is no table of tensors. Copy the file again.")
    return header, start


def _by_place(found: tuple[str, StoredTensor, int]) -> tuple[int, str]:
    return found[2], found[0]


def _tensor(name: str, claim: Any, size: int) -> tuple[str, StoredTensor, int]:
    """One tensor by the header's claim, held against the `size` bytes of data there are."""
    try:
        dtype, shape, (begin, end) = DTYPES[claim["dtype"]], claim["shape"], claim["data_offsets"]
        if not all(type(number) is int and number >= 0 for number in (*shape, begin, end)):
            raise ValueError("a size that is no whole number")
        stored = StoredTensor(name, dtype, 0, tuple(shape), contiguous_stride(tuple(shape)))
    except (KeyError, TypeError, ValueError) as error:
        kind = claim.get("dtype") if isinstance(claim, Mapping) else claim
        raise CheckpointError(
            f"{name[:80]}: not a tensor this program reads ({str(kind)[:40]}). "
            "Save it in float32, or copy the file again if it is damaged."
        ) from error
    if end > size or end - begin != stored.bytes:
        raise CheckpointError(
            f"{name[:80]}: shape {stored.shape} does not fit its bytes {begin} to {end} of {size}. "
            "The file is damaged or truncated; copy or download it again."
        )
    return name, stored, begin
