"""A safetensors file enters; its flat state dict leaves, in the order of the bytes.

The format: the header's length as 8 bytes little-endian, the header as JSON, the data. The header
gives each tensor's number type, shape, and range in the data; the ranges cover it, without overlap.

The library maps files into memory: a file that is cut meanwhile ends the program by a signal, and
one that is rewritten changes tensors that were read already. Here they are read.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ttcompress.checkpoint.containers.source import Source
from ttcompress.checkpoint.stored import (
    Bytes,
    FileBytes,
    StoredTensor,
    contiguous_stride,
    read_tensor,
)
from ttcompress.errors import CheckpointError
from ttcompress.system.json import read_json
from ttcompress.system.safetensors import DTYPES, MAX_HEADER, RESERVED
from ttcompress.system.text import clip

LENGTH = struct.Struct("<Q")
ARTIFACT = "ttcompress"  # the key of the metadata that an artifact has


@dataclass(frozen=True)
class Contents:
    """What a safetensors file holds: text by key, and tensors by name, not read yet."""

    metadata: Mapping[str, str]
    tensors: Mapping[str, StoredTensor]
    storages: Mapping[str, Bytes]

    def read(self) -> dict[str, Tensor]:
        """All tensors, each in memory of its own.

        Raises:
            CheckpointError: the bytes are not there.
            OSError: the file cannot be read.
        """
        return {name: read_tensor(stored, self.storages) for name, stored in self.tensors.items()}


def read_safetensors(path: Path) -> Source:
    """Take the safetensors file of a model apart; no tensor is read.

    Raises:
        CheckpointError: damaged, truncated, or a ttcompress artifact.
    """
    found = read_contents(path)
    if ARTIFACT in found.metadata:
        raise CheckpointError(
            "is already compressed. Use `ttcompress restore` to get its dense weights back, "
            "`ttcompress evaluate` or `ttcompress report` to judge it."
        )
    unknown = sorted(set(found.metadata) - {"format"})
    notes = (f"metadata not carried: {', '.join(map(clip, unknown))[:200]}",) if unknown else ()
    return Source("safetensors", dict(found.tensors), found.storages, notes=notes)


def read_contents(path: Path) -> Contents:
    """What a safetensors file says of itself; no tensor is read.

    Raises:
        CheckpointError: damaged or truncated.
        OSError: it cannot be read.
    """
    header, start = _header(path)
    metadata = header.pop(RESERVED, {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise CheckpointError("its safetensors metadata is no table of text. Copy the file again.")
    size = path.stat().st_size - start
    found = sorted((_tensor(name, claim, size) for name, claim in header.items()), key=_by_place)
    _check_cover(found, size)
    return Contents(
        metadata,
        {name: stored for name, stored, _ in found},
        {name: FileBytes(path, start + begin, stored.bytes) for name, stored, begin in found},
    )


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
        header = read_json(bytes(FileBytes(path, LENGTH.size, length).read(0, length)))
    except ValueError as error:
        raise CheckpointError(
            f"its safetensors header is damaged ({str(error)[:80]}). Copy the file again."
        ) from error
    if not isinstance(header, dict):
        raise CheckpointError("its safetensors header is no table of tensors. Copy the file again.")
    return header, start


def _by_place(found: tuple[str, StoredTensor, int]) -> tuple[int, int, str]:
    name, stored, begin = found
    return begin, stored.bytes, name


def _check_cover(found: Sequence[tuple[str, StoredTensor, int]], size: int) -> None:
    """A few bytes that a million tensors share would stand for any amount of memory."""
    end = 0
    for name, stored, begin in found:
        if begin != end:
            what = "overlaps the tensor before it" if begin < end else "leaves a gap before it"
            raise CheckpointError(
                f"{name[:80]}: {what} (it begins at byte {begin}, that one ends at {end}). "
                "The file is damaged; copy or download it again."
            )
        end += stored.bytes
    if end != size:
        raise CheckpointError(
            f"its tensors end at byte {end} of {size}. Copy or download the file again."
        )


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
