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

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.complex64: "C64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write_safetensors(
    file: BinaryIO, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Write the header, then the tensors one by one."""
    file.write(_header(tensors, metadata))
    for name in _order(tensors):
        flat = tensors[name].detach().cpu().contiguous().reshape(-1)
        file.write(flat.view(torch.uint8).numpy().data if flat.numel() else b"")


def file_size(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> int:
    """The bytes `write_safetensors` will write."""
    return len(_header(tensors, metadata)) + sum(_bytes(tensor) for tensor in tensors.values())


def _header(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    entries: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    offset = 0
    for name in _order(tensors):
        end = offset + _bytes(tensors[name])
        entries[name] = {
            "dtype": _DTYPES[tensors[name].dtype],
            "shape": list(tensors[name].shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _order(tensors: Mapping[str, Tensor]) -> list[str]:
    return sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
