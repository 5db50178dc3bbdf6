"""Writing safetensors with one header for one content: named tensors enter, the same bytes leave.

The library's own writer keeps its metadata in a hash map whose order changes from run to run, and
builds the whole file in memory. Here tensors are sorted by item size (which keeps every one of them
aligned) and name, and streamed. Reading is left to the library.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import BinaryIO

import torch
from torch import Tensor

from ttcompress.errors import OutputError

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "C64": torch.complex64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""The number types that a file can hold, by their names in its header."""

MAX_HEADER = 100_000_000
"""Bytes; the format's own limit."""

RESERVED = "__metadata__"
"""The one name in a header that no tensor can have."""

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def write_safetensors(
    file: BinaryIO, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Write the header, then the tensors one by one.

    Raises:
        OutputError: the header is longer than any reader takes.
    """
    file.write(_header(tensors, metadata))
    for name in _order(tensors):
        flat = tensors[name].detach().cpu().contiguous().reshape(-1)
        file.write(flat.view(torch.uint8).numpy().data if flat.numel() else b"")


def file_size(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> int:
    """The bytes `write_safetensors` will write."""
    return len(_header(tensors, metadata)) + sum(_bytes(tensor) for tensor in tensors.values())


def _header(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    entries: dict[str, object] = {RESERVED: dict(sorted(metadata.items()))}
    offset = 0
    for name in _order(tensors):
        end = offset + _bytes(tensors[name])
        entries[name] = {
            "dtype": _NAMES[tensors[name].dtype],
            "shape": list(tensors[name].shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        raise OutputError(
            f"names and metadata take {len(text):,} bytes, and a safetensors header has at most "
            f"{MAX_HEADER:,}. Keep the vocabulary in a file of its own, beside the model."
        )
    return len(text).to_bytes(8, "little") + text


def _order(tensors: Mapping[str, Tensor]) -> list[str]:
    return sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
