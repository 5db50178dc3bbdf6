"""Reads pickled numpy arrays as tensors over the pickled bytes, and numpy scalars as numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ttcompress.checkpoint.pickle.objects import Builder, as_text
from ttcompress.checkpoint.tensors import (
    Bytes,
    MemoryBytes,
    StoredTensor,
    check_sizes,
    contiguous_stride,
)

_CODES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1", "c8", "c16")
NUMBERS = {code: torch.from_numpy(np.empty(0, code)).dtype for code in _CODES}
"""The number types that a tensor can have, by numpy's code; arrays of other types are not read."""


class PickledDtype:
    """A numpy number type: its code, and the byte order that the state adds."""

    def __init__(self, code: str, *_: Any) -> None:
        code = as_text(code)
        self.code = code.lstrip("<>|=")
        self.order = code[0] if code[0] in "<>" else "<"

    def build(self, state: Any) -> None:
        """State is (version, byte order, ...)."""
        if state[1] in ("<", ">"):
            self.order = state[1]

    def little_endian(self, data: Any) -> memoryview:
        """The values' bytes in little-endian order; only big-endian ones are copied.

        Raises:
            ValueError: not a number type.
        """
        if self.code not in NUMBERS:
            raise ValueError(f"numpy type {self.code} is not a number type")
        raw = data.encode("latin1") if isinstance(data, str) else data
        if self.order == ">":
            raw = np.frombuffer(raw, dtype=f">{self.code}").astype(f"<{self.code}").tobytes()
        return memoryview(raw)


class PickledArray:
    """A numpy array inside a pickle. `tensor` is None for arrays of text or objects."""

    def __init__(self, storages: dict[str, Bytes]) -> None:
        self.storages = storages
        self.tensor: StoredTensor | None = None

    def build(self, state: Any) -> None:
        """State is (version, shape, number type, Fortran order, bytes)."""
        _, shape, dtype, fortran, data = state
        self.fill(data, dtype, shape, "F" if fortran else "C")

    def fill(self, data: Any, dtype: PickledDtype, shape: Any, order: str) -> PickledArray:
        """Describe the array; its bytes become a separate storage.

        Raises:
            ValueError: the number of bytes does not match the shape.
        """
        if dtype.code not in NUMBERS:
            return self
        shape = check_sizes(shape)
        stride = contiguous_stride(shape)
        if order == "F":
            stride = contiguous_stride(shape[::-1])[::-1]
        key = f"array {len(self.storages)}"
        source = MemoryBytes(dtype.little_endian(data))
        tensor = StoredTensor(key, NUMBERS[dtype.code], 0, shape, stride)
        if tensor.bytes != source.size:
            raise ValueError(f"an array of shape {shape} in {source.size} bytes")
        self.storages[key] = source
        self.tensor = tensor
        return self


def _scalar(dtype: PickledDtype, data: Any = b"") -> Any:
    return np.frombuffer(dtype.little_endian(data), dtype=f"<{dtype.code}")[0].item()


def numpy_builders(storages: dict[str, Bytes]) -> dict[str, Builder]:
    """The builders for numpy's names; the bytes of every array are added to `storages`."""

    def from_buffer(data: Any, dtype: PickledDtype, shape: Any, order: str) -> PickledArray:
        return PickledArray(storages).fill(data, dtype, shape, order)

    builders: dict[str, Builder] = {"numpy.dtype": PickledDtype}
    for core in ("numpy.core", "numpy._core"):  # before numpy 2.0, and since
        builders[f"{core}.multiarray._reconstruct"] = lambda *_: PickledArray(storages)
        builders[f"{core}.multiarray.scalar"] = _scalar
        builders[f"{core}.numeric._frombuffer"] = from_buffer
    return builders
