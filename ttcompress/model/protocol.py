"""The `Model` protocol: what a checkpoint and a compressed model have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from ttcompress.model.weights import RecurrentStack

if TYPE_CHECKING:
    from torch import Tensor


class Model(Protocol):
    """A trained model read from a file, dense or compressed, with its tensors on demand."""

    @property
    def stacks(self) -> tuple[RecurrentStack, ...]:
        """Its recurrent layers."""
        ...

    @property
    def source_paths(self) -> Mapping[str, str]:
        """The path of each tensor in the file it comes from."""
        ...

    @property
    def carried(self) -> Any:
        """The rest of the file's content, as typed JSON."""
        ...

    @property
    def tied_shapes(self) -> Mapping[tuple[str, ...], tuple[int, ...]]:
        """The shape of every tensor, by all of its names."""
        ...

    def tensor(self, name: str) -> Tensor:
        """One tensor, dense, in the source's type, by any of its names."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Every tensor of the model's state dict, dense, under all of its names."""
        ...
