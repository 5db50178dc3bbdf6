"""Lets an exported graph hold a weight's stored numbers instead of their values in float32.

A view stands where a layer reads a core or a dense weight, and widens what the store keeps of it.
All that it reads is constant, so a runtime computes it once, as it loads the model.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ttcompress.layers.matrices import matrix_of
from ttcompress.stores import Encoded
from ttcompress.trains.stored import StoredWeight

CODES = "codes"
"""The name of a view's buffer of codes, by which they are found in the graph."""


class StoredView(nn.Module):
    """The values of a stored tensor, computed from what its store keeps of it."""

    def __init__(self, part: Encoded) -> None:
        super().__init__()
        self._store, self._shape = part.store, part.shape
        self._names = tuple(unpacked := part.store.unpack(part.tensors, part.shape))
        for name, tensor in unpacked.items():
            self.register_buffer(name, tensor)

    def forward(self, values: Tensor) -> Tensor:
        """What is stored; `values`, which hold the same in float32, are not read."""
        unpacked = {name: getattr(self, name) for name in self._names}
        return self._store.widen(unpacked, self._shape)


def see_stored(model: nn.Module, names: Sequence[str], stored: StoredWeight) -> None:
    """Let the layers of `model` read a weight from its stored numbers; float32 is left as it is.

    Args:
        model: changed in place.
        names: the weight's in the model's state dict, were it dense; several where it is tied.
        stored: the weight.
    """
    views = [StoredView(part) for part in stored.parts]
    if all(buffer.dtype == torch.float32 for view in views for buffer in view.buffers()):
        return  # the module holds these numbers already
    for name in names:
        owner, _, leaf = name.rpartition(".")
        matrix_of(model.get_submodule(owner), leaf).set_views(views)
