"""Describes a model that is already in memory, a module or a state dict, as readers do files.

Nothing is copied until a tensor is read. What is read is always a copy on the CPU, so the model
itself is never changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ttcompress.checkpoint.containers.source import Source
from ttcompress.checkpoint.pickle.builders import UnreadableTensor
from ttcompress.checkpoint.tensors import Bytes, StoredTensor, contiguous_stride
from ttcompress.checkpoint.tree import MAX_DEPTH
from ttcompress.errors import CheckpointError

InMemory = nn.Module | Mapping[str, Any]
"""A trained module, on any device, or its state dict."""


@dataclass(frozen=True, eq=False)
class TensorBytes:
    """The bytes of a tensor in memory, row-major."""

    tensor: Tensor

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self.tensor.numel() * self.tensor.element_size()

    def read(self, start: int, stop: int) -> bytearray:
        """A copy of a part, on the CPU."""
        flat = self.tensor.detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
        return bytearray(flat.view(torch.uint8)[start:stop].cpu().numpy())


def read_memory(model: InMemory) -> Source:
    """Describe a module's state dict, or a state dict with whatever is nested beside it.

    Raises:
        CheckpointError: neither a module nor a mapping, or nested too deeply.
    """
    own_names = isinstance(model, nn.Module)
    root = model.state_dict() if isinstance(model, nn.Module) else model
    if not isinstance(root, Mapping):
        raise CheckpointError("a model is a file, a module or a state dict.")
    memory = _Memory()
    described = memory.describe(root)
    return Source(
        describe(model), described, memory.storages, own_names=own_names, hash=memory.hash
    )


def describe(model: object) -> str:
    """What messages call a model in memory."""
    return f"{'state dict' if isinstance(model, Mapping) else type(model).__name__} in memory"


class _Memory:
    """Describes tensors one after another; those that share the same elements are one."""

    def __init__(self) -> None:
        self.storages: dict[str, Bytes] = {}
        self._known: dict[tuple[Any, ...], StoredTensor] = {}

    def describe(self, value: Any, depth: int = 0) -> Any:
        """The value with a description in place of every tensor."""
        if depth > MAX_DEPTH:
            raise CheckpointError(
                f"the state dict is nested over {MAX_DEPTH} levels deep. Give the module's own."
            )
        if isinstance(value, Tensor):
            return self._tensor(value)
        if isinstance(value, Mapping):
            return {key: self.describe(child, depth + 1) for key, child in value.items()}
        if type(value) in (list, tuple):
            return type(value)(self.describe(child, depth + 1) for child in value)
        return value

    def _tensor(self, tensor: Tensor) -> StoredTensor | UnreadableTensor:
        if tensor.is_quantized or tensor.layout != torch.strided or tensor.is_meta:
            what = "quantised" if tensor.is_quantized else f"{tensor.layout} on {tensor.device}"
            return UnreadableTensor(f"{what}; give the model with its dense floating-point values")
        shape = tuple(tensor.shape)
        place = (tensor.device, tensor.data_ptr(), tensor.dtype, shape, tensor.stride())
        key = place if tensor.numel() else (id(tensor),)  # empty tensors have no address
        if key not in self._known:
            name = str(len(self.storages))
            self.storages[name] = TensorBytes(tensor)
            stored = StoredTensor(name, tensor.dtype, 0, shape, contiguous_stride(shape))
            self._known[key] = stored
        return self._known[key]

    def hash(self) -> str:
        """SHA-256 over the types, shapes and values of all tensors, in the order they are met."""
        digest = hashlib.sha256()
        for stored in self._known.values():
            digest.update(f"{stored.dtype_name} {stored.shape};".encode())
            source = self.storages[stored.storage]
            digest.update(source.read(0, source.size))
        return digest.hexdigest()
