"""Lets an exported graph hold a weight's stored numbers instead of their values in float32.

A view takes the place of a core or a dense weight in a layer, and widens the stored numbers. They
are constant, so a runtime computes the values once, when it loads the model.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ttcompress.layers.matrices import matrix_of
from ttcompress.stores import Encoded
from ttcompress.trains.stored import StoredWeight

CODES = "codes"
"""The name of a view's buffer of codes, by which the graph is searched for them."""


class StoredView(nn.Module):
    """Computes the values of a stored tensor from its stored numbers."""

    def __init__(self, part: Encoded) -> None:
        super().__init__()
        self._store, self._shape = part.store, part.shape
        self._names = tuple(unpacked := part.store.unpack(part.tensors, part.shape))
        for name, tensor in unpacked.items():
            self.register_buffer(name, tensor)

    def forward(self, values: Tensor) -> Tensor:
        """The stored values; `values`, the same in float32, is not read."""
        unpacked = {name: getattr(self, name) for name in self._names}
        return self._store.widen(unpacked, self._shape)


def holds_nibbles(model: nn.Module) -> bool:
    """Whether any view has codes that fit into 4 bits."""
    views = [one for one in model.modules() if isinstance(one, StoredView)]
    codes = [getattr(one, CODES) for one in views if hasattr(one, CODES)]
    return any(c.dtype == torch.uint8 and c.numel() and int(c.max()) < 16 for c in codes)


def see_stored(model: nn.Module, names: Sequence[str], stored: StoredWeight) -> None:
    """Let the layers of `model` read a weight from its stored numbers, unless those are float32.

    Args:
        model: changed in place.
        names: those the weight would have in a dense model's state dict; several if it is tied.
        stored: the weight.
    """
    views = [StoredView(part) for part in stored.parts]
    if all(buffer.dtype == torch.float32 for view in views for buffer in view.buffers()):
        return  # the module holds these numbers already
    for name in names:
        owner, _, leaf = name.rpartition(".")
        matrix_of(model.get_submodule(owner), leaf).set_views(views)
