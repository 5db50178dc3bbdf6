"""What a pickle may build, the allow-list: names and arguments enter, plain values leave.

Each builder checks what it is given, because the arguments come from the file. A wrong argument
raises TypeError or ValueError, which the reader reports as a damaged pickle.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePath, PurePosixPath, PureWindowsPath
from typing import Any

import torch

from ttcompress.checkpoint.pickle.objects import Builder, Global, check_key
from ttcompress.checkpoint.stored import MAX_DIMENSIONS, StoredStorage, StoredTensor, span_of

MAX_PATH = 65_536  # characters; longer than any system takes


@dataclass(frozen=True)
class Unreadable:
    """A tensor of a kind that is not read: an error if it is wanted. `why` has the cure."""

    why: str


STORAGE_TYPES: dict[str, torch.dtype] = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexDoubleStorage": torch.complex128,
    "ComplexFloatStorage": torch.complex64,
    "UntypedStorage": torch.uint8,
    "QInt8Storage": torch.int8,
    "QUInt8Storage": torch.uint8,
    "QInt32Storage": torch.int32,
}
"""Element type by the name of the storage's class; `torch.cuda.FloatStorage` is one of them too."""

DTYPES: dict[str, torch.dtype] = {
    f"torch.{name}": value for name, value in vars(torch).items() if isinstance(value, torch.dtype)
}


def storage_dtype(kind: Any) -> torch.dtype:
    """The element type of a storage class.

    Raises:
        ValueError: no storage has this class.
    """
    dtype = STORAGE_TYPES.get(kind.name) if isinstance(kind, Global) else None
    if dtype is None or kind.module.partition(".")[0] != "torch":
        raise ValueError(f"{kind} is no storage")
    return dtype


def _whole_numbers(values: Any) -> tuple[int, ...]:
    numbers = tuple(values)
    if not all(type(number) is int and 0 <= number < 2**62 for number in numbers):
        raise ValueError("a size or stride that is no whole number")
    if len(numbers) > MAX_DIMENSIONS:
        raise ValueError(f"a tensor of {len(numbers)} dimensions")
    return numbers


def _window(
    storage: Any, dtype: torch.dtype, offset: Any, shape: Any, stride: Any
) -> StoredTensor | Unreadable:
    if isinstance(storage, Unreadable):
        return storage
    if not isinstance(storage, StoredStorage):
        raise TypeError("a tensor without a storage")
    shape, stride = _whole_numbers(shape), _whole_numbers(stride)
    (offset,) = _whole_numbers((offset,))
    available = storage.numel * storage.dtype.itemsize // dtype.itemsize
    if offset + span_of(shape, stride) > available:
        raise ValueError(f"shape {shape} at {offset} leaves its storage of {available} elements")
    offset += storage.offset * storage.dtype.itemsize // dtype.itemsize
    return StoredTensor(storage.key, dtype, offset, shape, stride)


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> Any:
    dtype = storage.dtype if isinstance(storage, StoredStorage) else torch.uint8
    return _window(storage, dtype, offset, shape, stride)


def _tensor_with_dtype(
    storage: Any,
    offset: Any,
    shape: Any,
    stride: Any,
    requires_grad: Any,
    hooks: Any,
    dtype: Any,
    *_: Any,
) -> Any:
    return _window(storage, DTYPES[str(dtype)], offset, shape, stride)


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _subclass(rebuild: Any, kind: Any, args: Any, *_: Any) -> Any:
    """A tensor subclass is read as the tensor it is made from."""
    builder = TENSOR_BUILDERS.get(str(rebuild))
    return Unreadable(f"a tensor of class {kind}") if builder is None else builder(*args)


def _unreadable(why: str) -> Builder:
    return lambda *_: Unreadable(why)


_QUANTISED = _unreadable("a quantised tensor. Save the model as it was before quantisation")
_SPARSE = _unreadable("a sparse tensor. Save it with .to_dense()")
_NO_DATA = _unreadable("a tensor without data (device 'meta'). Save the model after loading it")
_OTHER_DEVICE = _unreadable("a tensor of a device that stores its own way. Save it with .cpu()")

TENSOR_BUILDERS: dict[str, Builder] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_with_dtype,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._utils._rebuild_qtensor": _QUANTISED,
    "torch._utils._rebuild_sparse_tensor": _SPARSE,
    "torch._utils._rebuild_sparse_csr_tensor": _SPARSE,
    "torch._utils._rebuild_nested_tensor": _SPARSE,
    "torch._utils._rebuild_meta_tensor_no_storage": _NO_DATA,
    "torch._utils._rebuild_wrapper_subclass": _OTHER_DEVICE,
    "torch._utils._rebuild_device_tensor_from_numpy": _OTHER_DEVICE,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _parameter,
    "torch._utils._rebuild_xla_tensor": _OTHER_DEVICE,
    "torch._tensor._rebuild_from_type_v2": _subclass,
    "torch._tensor._rebuild_from_type": lambda rebuild, kind, args, *_: _subclass(
        rebuild, kind, args
    ),
    "torch.storage.TypedStorage": lambda *args: args[0],
    "torch.Size": lambda sizes=(): _whole_numbers(sizes),
    "torch.device": lambda kind, index=None: kind if index is None else f"{kind}:{index}",
    "torch.jit._pickle.restore_type_tag": lambda value, tag: value,
    "torch.jit._pickle.build_intlist": lambda values: values,
    "torch.jit._pickle.build_doublelist": lambda values: values,
    "torch.jit._pickle.build_boollist": lambda values: values,
    "torch.jit._pickle.build_tensorlist": lambda values: values,
}


def _pairs(kind: type[dict[Any, Any]], pairs: Any = ()) -> dict[Any, Any]:
    made = kind()
    for key, value in pairs.items() if isinstance(pairs, dict) else pairs:
        made[check_key(key)] = value
    return made


def _elements(values: Iterable[Any]) -> Iterable[Any]:
    return (check_key(value) for value in values)


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    """How protocols below 3 write bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise ValueError(f"bytes written in {encoding}")
    return text.encode("latin1")


def _bytearray(data: bytes | str = b"", encoding: str = "latin1") -> bytearray:
    """Never from a number: `bytearray(10**12)` is a claim on memory."""
    if not isinstance(data, bytes | str):
        raise TypeError("a bytearray that is not made of bytes")
    return bytearray(data if isinstance(data, bytes) else _latin1(data, encoding))


_BUILTIN: dict[str, Builder] = {
    "set": lambda values=(): set(_elements(values)),
    "frozenset": lambda values=(): frozenset(_elements(values)),
    "list": lambda values=(): list(values),
    "tuple": lambda values=(): tuple(values),
    "dict": lambda pairs=(): _pairs(dict, pairs),
    "bytes": lambda data=b"": bytes(_bytearray(data)),
    "bytearray": _bytearray,
    "complex": lambda real=0.0, imaginary=0.0: complex(real, imaginary),
}


def _path(kind: type[PurePath], parts: tuple[Any, ...]) -> str:
    """Bounded, because a path made of itself doubles, and forty of those fill any memory."""
    length = sum(map(len, parts))
    if length > MAX_PATH:
        raise ValueError(f"a path of {length} characters")
    return str(kind(*parts))


_PATHS: dict[str, Builder] = {
    f"{module}.{name}": (lambda *parts, kind=kind: _path(kind, parts))
    for module in ("pathlib", "pathlib._local")
    for name, kind in {
        "Path": PurePosixPath,
        "PosixPath": PurePosixPath,
        "PurePosixPath": PurePosixPath,
        "WindowsPath": PureWindowsPath,
        "PureWindowsPath": PureWindowsPath,
    }.items()
}

BUILDERS: dict[str, Builder] = {
    **TENSOR_BUILDERS,
    **_PATHS,
    **{
        f"{module}.{name}": build
        for module in ("builtins", "__builtin__")
        for name, build in _BUILTIN.items()
    },
    "collections.OrderedDict": lambda pairs=(): _pairs(OrderedDict, pairs),
    "collections.defaultdict": lambda factory=None, pairs=(): _pairs(dict, pairs),
    "collections.Counter": lambda pairs=(): _pairs(dict, pairs),
    "collections.deque": lambda values=(), longest=None: list(values),
    "_codecs.encode": _latin1,
}
