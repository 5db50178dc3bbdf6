"""The allow-list: what a pickle may build, by the names it asks for.

Each builder checks what it is given, because the arguments come from the file. A wrong argument
raises TypeError or ValueError, which the reader reports as a damaged pickle.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from pathlib import PurePath, PurePosixPath, PureWindowsPath
from typing import Any

import torch

from ttcompress.checkpoint.pickle.objects import Builder, Global, as_text, check_key
from ttcompress.checkpoint.tensors import StoredStorage, StoredTensor, check_sizes, span_of

MAX_PATH = 65_536  # characters; more than any system accepts


@dataclass(frozen=True)
class UnreadableTensor:
    """A tensor of an unsupported kind: an error if it is needed. `why` has the cure."""

    why: str


QUANTISED = UnreadableTensor("a quantised tensor. Save the model before quantising it")
"""Also what packed weights are read as: those of layers that `torch.ao.quantization` made."""

STORAGE_TYPES: dict[str, torch.dtype] = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool, "UntypedStorage": torch.uint8,
    "ComplexDoubleStorage": torch.complex128, "ComplexFloatStorage": torch.complex64,
    "QInt8Storage": torch.int8, "QUInt8Storage": torch.uint8, "QInt32Storage": torch.int32,
}  # fmt: skip
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
        raise ValueError(f"{as_text(kind)} is not a storage")
    return dtype


def _tensor(
    storage: Any, offset: Any, shape: Any, stride: Any, dtype: torch.dtype | None = None
) -> StoredTensor | UnreadableTensor:
    """A window on a storage, in the storage's number type unless another is given."""
    if isinstance(storage, UnreadableTensor):
        return storage
    if not isinstance(storage, StoredStorage):
        raise TypeError("a tensor without a storage")
    dtype = dtype or storage.dtype
    shape, stride = check_sizes(shape), check_sizes(stride)
    (offset,) = check_sizes((offset,))
    available = storage.numel * storage.dtype.itemsize // dtype.itemsize
    if offset + span_of(shape, stride) > available:
        raise ValueError(
            f"shape {shape} at {offset} goes beyond its storage of {available} elements"
        )
    offset += storage.offset * storage.dtype.itemsize // dtype.itemsize
    return StoredTensor(storage.key, dtype, offset, shape, stride)


def _tensor_v2(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> Any:
    return _tensor(storage, offset, shape, stride)


def _tensor_v3(
    storage: Any, offset: Any, shape: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, *_: Any
) -> Any:
    return _tensor(storage, offset, shape, stride, DTYPES[as_text(dtype)])


def _subclass(rebuild: Any, kind: Any, args: Any, *_: Any) -> Any:
    """A tensor subclass is read as the tensor it is made from."""
    builder = TENSOR_BUILDERS.get(as_text(rebuild))
    return (
        UnreadableTensor(f"a tensor of class {as_text(kind)}. Save it as a plain torch.Tensor")
        if builder is None
        else builder(*args)
    )


def _first(value: Any, *_: Any) -> Any:
    """The value that a class such as Parameter only wraps."""
    return value


def _unreadable(why: str) -> Builder:
    return lambda *_: UnreadableTensor(why)


def _wrapper(kind: Any, *_: Any) -> UnreadableTensor:
    """A quantised tensor of torchao, a sharded one, and their kin, which hold other tensors."""
    return UnreadableTensor(
        f"a tensor of class {as_text(kind)}, which wraps others. "
        "Save the model before quantising it, or with plain tensors"
    )


_SPARSE = _unreadable("a sparse tensor. Save it with .to_dense()")
_NO_DATA = _unreadable("a tensor without data (device 'meta'). Save the model after loading it")
_OTHER_DEVICE = _unreadable("a tensor in the format of a special device. Save it with .cpu()")

TENSOR_BUILDERS: dict[str, Builder] = {
    "torch._utils._rebuild_tensor": _tensor_v2,
    "torch._utils._rebuild_tensor_v2": _tensor_v2,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._utils._rebuild_qtensor": lambda *_: QUANTISED,
    "torch._utils._rebuild_sparse_tensor": _SPARSE,
    "torch._utils._rebuild_sparse_csr_tensor": _SPARSE,
    "torch._utils._rebuild_nested_tensor": _SPARSE,
    "torch._utils._rebuild_meta_tensor_no_storage": _NO_DATA,
    "torch._utils._rebuild_wrapper_subclass": _wrapper,
    "torch._utils._rebuild_device_tensor_from_numpy": _OTHER_DEVICE,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _first,
    "torch._utils._rebuild_xla_tensor": _OTHER_DEVICE,
    "torch._tensor._rebuild_from_type_v2": _subclass,
    "torch._tensor._rebuild_from_type": _subclass,
    "torch.storage.TypedStorage": _first,
    "torch.Size": lambda sizes=(): check_sizes(sizes),
    "torch.device": lambda kind, at=None: kind if at is None else f"{as_text(kind)}:{as_text(at)}",
    "torch.jit._pickle.restore_type_tag": _first,
    **{f"torch.jit._pickle.build_{k}list": _first for k in ("int", "double", "bool", "tensor")},
}


def _pairs(kind: type[dict[Any, Any]], pairs: Any = ()) -> dict[Any, Any]:
    made = kind()
    for key, value in pairs.items() if isinstance(pairs, dict) else pairs:
        made[check_key(key)] = value
    return made


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    """How protocols below 3 write bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise ValueError(f"bytes written in {as_text(encoding)}")
    return text.encode("latin1")


def _bytearray(data: bytes | str = b"", encoding: str = "latin1") -> bytearray:
    """Never from a number: `bytearray(10**12)` would claim memory."""
    if not isinstance(data, bytes | str):
        raise TypeError("a bytearray that is not made of bytes")
    return bytearray(data if isinstance(data, bytes) else _latin1(data, encoding))


def _path(kind: type[PurePath], *parts: Any) -> str:
    """Limited in length: a path built from itself doubles, and forty doublings fill any memory."""
    length = sum(map(len, parts))
    if length > MAX_PATH:
        raise ValueError(f"a path of {length} characters")
    return str(kind(*parts))


def _under_both(modules: tuple[str, str], builders: dict[str, Builder]) -> dict[str, Builder]:
    """The names that two versions of Python have in different modules."""
    return {f"{module}.{name}": build for module in modules for name, build in builders.items()}


_BUILTIN: dict[str, Builder] = {
    "set": lambda values=(): set(map(check_key, values)),
    "frozenset": lambda values=(): frozenset(map(check_key, values)),
    "list": lambda values=(): list(values),
    "tuple": lambda values=(): tuple(values),
    "dict": partial(_pairs, dict),
    "bytes": lambda data=b"": bytes(_bytearray(data)),
    "bytearray": _bytearray,
    "complex": lambda real=0.0, imaginary=0.0: complex(real, imaginary),
}
_PATHS: dict[str, Builder] = {
    **dict.fromkeys(("Path", "PosixPath", "PurePosixPath"), partial(_path, PurePosixPath)),
    **dict.fromkeys(("WindowsPath", "PureWindowsPath"), partial(_path, PureWindowsPath)),
}

BUILDERS: dict[str, Builder] = {
    **TENSOR_BUILDERS,
    **_under_both(("pathlib", "pathlib._local"), _PATHS),
    **_under_both(("builtins", "__builtin__"), _BUILTIN),
    "collections.OrderedDict": partial(_pairs, OrderedDict),
    "collections.defaultdict": lambda factory=None, pairs=(): _pairs(dict, pairs),
    "collections.Counter": partial(_pairs, dict),
    "collections.deque": lambda values=(), longest=None: list(values),
    "_codecs.encode": _latin1,
}
