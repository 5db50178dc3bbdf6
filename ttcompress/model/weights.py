"""Weights, other tensors and recurrent layers, described by names and shapes.

Checkpoint, plan and report share these classes. They hold no tensors, so planning needs no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal

Role = Literal["recurrent", "embedding", "linear", "matrix"]
Kind = Literal["lstm", "gru", "rnn"]

ROLES: tuple[Role, ...] = ("recurrent", "embedding", "linear")
"""The roles of what a layer multiplies by or looks up: rules select by these."""

UNKNOWN: Role = "matrix"
"""The role of a matrix that no layer is known to use: only a rule with its name selects it."""

NO_WEIGHT = "not a weight"
NO_EVIDENCE = (
    "no layer is known to multiply by it or look it up; a rule with its exact name compresses it"
)
INFINITE = "it holds infinite values, so a rule must keep it (format: keep)"
"""Why a tensor is kept: a bias, a buffer or an integer table; a matrix of unknown use; a weight
that no store can hold.
"""

GATES: dict[Kind, int] = {"lstm": 4, "gru": 3, "rnn": 1}
"""Blocks of rows: (input, forget, cell, output), (reset, update, new), one."""

BYTES_PER_VALUE: dict[str, int] = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
}


@dataclass(frozen=True)
class Weight:
    """A named 2-D floating-point tensor of a checkpoint, whether or not its use is known.

    `name` is the first of `names`; tied weights are one `Weight` with several names.
    `shape` is (rows, columns); a recurrent weight's rows are `gates` stacked blocks of equal
    height. `dtype` is torch's name of the type without the prefix, e.g. "float32".
    """

    name: str
    names: tuple[str, ...]
    role: Role
    shape: tuple[int, int]
    dtype: str
    gates: int = 1

    @property
    def params(self) -> int:
        """How many values."""
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        """Size in bytes in the source's dtype."""
        return self.params * BYTES_PER_VALUE[self.dtype]

    @property
    def looked_up(self) -> bool:
        """Whether rows are only looked up; a tied embedding is also the output layer."""
        return self.role == "embedding" and len(self.names) == 1


@dataclass(frozen=True)
class OtherTensor:
    """A tensor that is not a weight, always kept as it is: a bias, a buffer, an integer table.

    `dtype` is torch's name of any type without the prefix, `bytes` the size of the values; `why` it
    is kept.
    """

    name: str
    names: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    why: str = NO_WEIGHT

    @property
    def params(self) -> int:
        """How many values."""
        return prod(self.shape)


@dataclass(frozen=True)
class RecurrentStack:
    """One recurrent module: the geometry that `torch.nn.LSTM` and its siblings are built with.

    `prefix` is the module's path with its trailing dot ("encoder.lstm." or "" at the root). A
    `cell` has keys without the `_l0` suffix. `proj_size` is 0 without projection. `raw` says
    whether the hidden-to-hidden keys end in `_raw` (weight-drop).
    """

    prefix: str
    kind: Kind
    input_size: int
    hidden_size: int
    num_layers: int = 1
    bidirectional: bool = False
    proj_size: int = 0
    bias: bool = True
    cell: bool = False
    raw: bool = False

    @property
    def directions(self) -> int:
        """1, or 2 if the stack is bidirectional."""
        return 2 if self.bidirectional else 1

    @property
    def output_size(self) -> int:
        """Number of values in the output of each time step."""
        return (self.proj_size or self.hidden_size) * self.directions
