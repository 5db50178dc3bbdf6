"""Few-bit weights in an exported graph: stored numbers enter, a graph that holds them leaves.

A view stands where a layer reads a core or a dense weight, and makes the values of the codes. All
it takes is constant, so a runtime computes it once, as it loads the model.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import pad

from ttcompress.layers.matrices import matrix_of
from ttcompress.stores.rounding import Rounded
from ttcompress.trains.stored import StoredWeight

CODES = "codes"
"""The name of a view's buffer of codes, by which they are found in the graph."""


class StoredView(nn.Module):
    """The values of a stored tensor, computed from what the artifact keeps of it."""

    def __init__(self, part: Rounded) -> None:
        super().__init__()
        self._shape = part.shape
        self._bits = part.store.bits
        self._group = part.store.group
        if self._group is None:
            self.kept = nn.Buffer(part.tensors[""])
            return
        codes = part.codes()
        self._count = len(codes)
        whole = pad(codes, (0, -len(codes) % self._group))
        self.codes = nn.Buffer(whole.reshape(-1, self._group))
        self.scales = nn.Buffer(part.tensors[".scales"])
        self.factor = nn.Buffer(part.tensors[".factor"])

    def forward(self, values: Tensor) -> Tensor:
        """What is stored; `values`, which hold the same in float32, are not read."""
        if self._group is None:
            kept: Tensor = self.kept
            return kept.float()
        levels = self.codes.float() - (2**self._bits - 1) / 2
        grouped: Tensor = levels * (self.scales.float() * self.factor)[:, None]
        return grouped.reshape(-1)[: self._count].reshape(self._shape)


def see_stored(model: nn.Module, names: Sequence[str], stored: StoredWeight) -> None:
    """Let the layers of `model` read a weight from its stored numbers; float32 is left as it is.

    Args:
        model: changed in place.
        names: the weight's in the model's state dict, were it dense; several where it is tied.
        stored: the weight.
    """
    if stored.parts[0].store.name == "float32":
        return
    views = [StoredView(part) for part in stored.parts]
    for name in names:
        owner, _, leaf = name.rpartition(".")
        matrix_of(model.get_submodule(owner), leaf).see_through(views)
