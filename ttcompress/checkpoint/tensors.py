"""Describes tensors where they lie in a file, and reads them one at a time.

Every container gives the same two things: byte ranges by storage key (`Bytes`), and tensors that
are strided windows on them (`StoredTensor`). Nothing here depends on the kind of container.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Protocol

import torch

from ttcompress.errors import CheckpointError
from ttcompress.system.safetensors import MAX_DIMENSIONS

FLOATS = frozenset({torch.float64, torch.float32, torch.float16, torch.bfloat16})
"""The number types a weight may have; tensors of other types are kept as they are."""

SLAB = 4 * 2**20  # bytes of a tensor with unusual strides that are read at a time

EXPANSION_ALLOWANCE = 16 * 2**20
"""Bytes that a tensor with repeated elements (stride 0) may take beyond what its storage holds."""


class Bytes(Protocol):
    """A run of bytes that is read on demand."""

    @property
    def size(self) -> int:
        """Length in bytes."""

    def read(self, start: int, stop: int) -> bytearray | memoryview:
        """The bytes from `start` up to `stop`, in a buffer of their own."""


@dataclass(frozen=True)
class MemoryBytes:
    """Bytes inside the pickle itself, such as a numpy array's."""

    data: memoryview

    @property
    def size(self) -> int:
        """Length in bytes."""
        return len(self.data)

    def read(self, start: int, stop: int) -> bytearray:
        """A copy of a part."""
        return bytearray(self.data[start:stop])


@dataclass(frozen=True)
class StoredStorage:
    """A storage as a pickle names it: `numel` elements of `dtype` under `key`."""

    key: str
    dtype: torch.dtype
    numel: int
    offset: int = 0  # elements; only views of storages in files older than torch 0.4 have one


@dataclass(frozen=True)
class StoredTensor:
    """A tensor not yet read: a strided window on a storage, `offset` and `stride` in elements.

    Two equal descriptions are the same tensor: this is what "tied" means. Windows that merely
    overlap, as in one flat storage for a whole recurrent layer, differ and are not tied.
    """

    storage: str
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def dtype_name(self) -> str:
        """torch's name of the number type, without the prefix: "float32"."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def bytes(self) -> int:
        """Size of the values, each counted once for every place it appears."""
        return prod(self.shape) * self.dtype.itemsize

    @property
    def span(self) -> int:
        """Elements from the first to the last one used, both included; 0 for an empty tensor."""
        return span_of(self.shape, self.stride)

    @property
    def is_weight(self) -> bool:
        """Whether it is a matrix of floating-point numbers with no empty side."""
        return len(self.shape) == 2 and 0 not in self.shape and self.dtype in FLOATS

    @property
    def is_quantised(self) -> bool:
        """Whether it is a matrix of one-byte numbers, as quantised weights are."""
        few = self.dtype.itemsize == 1 and self.dtype != torch.bool
        return len(self.shape) == 2 and 0 not in self.shape and few

    @property
    def is_vector(self) -> bool:
        """Whether it is a vector of floating-point numbers, as biases are."""
        return len(self.shape) == 1 and self.dtype in FLOATS


def span_of(shape: tuple[int, ...], stride: tuple[int, ...]) -> int:
    """How many elements a window spans.

    Example:
        >>> span_of((2, 3), (3, 1)), span_of((3, 2), (1, 3)), span_of((0, 3), (3, 1))
        (6, 6, 0)
    """
    if 0 in shape:
        return 0
    return 1 + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))


def contiguous_stride(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Row-major strides in elements.

    Example:
        >>> contiguous_stride((2, 3, 4))
        (12, 4, 1)
    """
    return tuple(prod(shape[k + 1 :]) for k in range(len(shape)))


def check_sizes(values: Any) -> tuple[int, ...]:
    """Check that sizes, strides or offsets from a file are numbers that torch can hold.

    Raises:
        TypeError: not a sequence.
        ValueError: not whole numbers, too large, or more of them than a tensor has dimensions.
    """
    numbers = tuple(values)
    if not all(type(number) is int and 0 <= number < 2**62 for number in numbers):
        raise ValueError("a size or stride that is not a whole number")
    if len(numbers) > MAX_DIMENSIONS:
        raise ValueError(f"a tensor of {len(numbers)} dimensions")
    return numbers


def check_tensor(stored: StoredTensor, source: Bytes) -> None:
    """Compare a tensor's claims with the bytes that are really there, before anything is allocated.

    Raises:
        CheckpointError: the window goes beyond its storage, or repeats elements into a huge tensor.
    """
    end = (stored.offset + stored.span) * stored.dtype.itemsize
    if end > source.size:
        raise CheckpointError(
            f"a tensor of shape {stored.shape} needs {end} bytes of storage {stored.storage!r}, "
            f"which has {source.size}. The file is damaged; copy or download it again."
        )
    # torch multiplies the other sides even where one is empty and the product 0.
    claimed = prod(max(size, 1) for size in stored.shape) * stored.dtype.itemsize
    if claimed > source.size + EXPANSION_ALLOWANCE:
        raise CheckpointError(
            f"a tensor of shape {stored.shape} would take {claimed} bytes, but its storage "
            f"has {source.size}. If it really is that large, save it with .contiguous()."
        )


def read_tensor(stored: StoredTensor, storages: Mapping[str, Bytes]) -> torch.Tensor:
    """Read one tensor into new contiguous CPU memory, in its stored number type.

    Raises:
        CheckpointError: the bytes are not there.
    """
    shape, stride = stored.shape, stored.stride
    if 0 in shape:
        return torch.empty(shape, dtype=stored.dtype)
    source = storages[stored.storage]
    if stride == contiguous_stride(shape):
        return _read_window(stored, source)
    # Slab by slab along the axis with the longest step, so that no second copy is ever held.
    tensor = torch.empty(shape, dtype=stored.dtype)
    axis = max(range(len(shape)), key=stride.__getitem__)
    thickness = max(SLAB // (max(stride[axis], 1) * stored.dtype.itemsize), 1)
    for begin in range(0, shape[axis], thickness):
        count = min(thickness, shape[axis] - begin)
        slab = replace(
            stored,
            offset=stored.offset + begin * stride[axis],
            shape=(*shape[:axis], count, *shape[axis + 1 :]),
        )
        tensor.narrow(axis, begin, count).copy_(_read_window(slab, source))
    return tensor


def _read_window(stored: StoredTensor, source: Bytes) -> torch.Tensor:
    """A view with the window's strides on a buffer that holds just the window."""
    start = stored.offset * stored.dtype.itemsize
    buffer = source.read(start, start + stored.span * stored.dtype.itemsize)
    return torch.frombuffer(buffer, dtype=stored.dtype).as_strided(stored.shape, stored.stride)
