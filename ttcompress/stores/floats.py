"""Stores values as floating-point numbers, each rounded to the nearest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ttcompress.stores.store import Encoded, Parts, Shape, Store
from ttcompress.system.late import torch

if TYPE_CHECKING:
    from torch import Tensor

_BLOCK = 1 << 22
"""How many values are checked together: bounds the memory of the check."""


@dataclass(frozen=True, kw_only=True)
class Floats(Store):
    """A floating-point type, under torch's name; stores one tensor of the same shape."""

    size: int  # bytes of a value

    @property
    def bytes_per_value(self) -> float:
        """The size of a number."""
        return self.size

    def parts(self, shape: Shape) -> Parts:
        """The values."""
        return {"": (shape, self.name)}

    def encode(self, values: Tensor, fitted: Mapping[str, Tensor] | None = None) -> Encoded:
        """Round to nearest."""
        kept = values.detach().to(getattr(torch, self.name)).contiguous()
        if not all(bool(part.isfinite().all()) for part in torch.split(kept.reshape(-1), _BLOCK)):
            raise self.refusal(values, "Use bfloat16, float32 or an integer store")
        return Encoded(self, tuple(values.shape), {"": kept})

    def widen(self, unpacked: Mapping[str, Tensor], shape: Shape) -> Tensor:
        """The same numbers in float32."""
        return unpacked["kept"].float()


FLOATS = (
    # float16 is as small as bfloat16 and rounds finer: only it is offered to `auto`.
    Floats(name="bfloat16", size=2, noise=2.8e-6),
    Floats(name="float16", size=2, noise=4.3e-8, in_auto=True),
    Floats(name="float32", size=4, noise=1e-15, in_auto=True),
)
