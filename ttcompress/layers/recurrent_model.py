"""The common recurrent model as a module: embedding, recurrent layers, linear layer.

A `Chain` gives their places in a checkpoint and their sizes; `RecurrentModel` runs them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import rnn

from ttcompress.layers.stacks import Nonlinearity, recurrent_module
from ttcompress.model.weights import RecurrentStack

Pooling = Literal["last", "mean", "max"]

POOLINGS: tuple[Pooling, ...] = get_args(Pooling)

State = tuple[Any, ...]
"""One state for each stack: (hidden, cell) of an LSTM, otherwise hidden."""


@dataclass(frozen=True)
class Chain:
    """The parts of a common recurrent model, as paths of modules and their sizes.

    Attributes:
        embedding: the embedding's path; None if inputs are one-hot or values.
        symbols: how many different inputs there are, or how many values in each step.
        stacks: the recurrent layers, each taking the outputs of the one before.
        linear: the path of the last layer.
        classes: how many outputs the last layer has.
        bias: whether the last layer has a bias.
        tied: whether the last layer's weight is the embedding's.
    """

    embedding: str | None
    symbols: int
    stacks: tuple[RecurrentStack, ...]
    linear: str
    classes: int
    bias: bool
    tied: bool


class RecurrentModel(nn.Module):
    """Embedding, one-hot or values -> recurrent layers -> linear, under the checkpoint's names.

    Layers are looked up by path at each call, so that compressed ones can replace them.

    Args:
        chain: the paths and sizes.
        pooling: how a sequence becomes one output, "last" by each direction's last step; None for
            an output at each step.
        nonlinearity: of the stacks that are RNNs.
    """

    def __init__(
        self, chain: Chain, pooling: Pooling | None = None, nonlinearity: Nonlinearity = "tanh"
    ) -> None:
        super().__init__()
        self.chain = chain
        self.pooling = pooling
        for stack in chain.stacks:
            place_module(
                self, stack.prefix.removesuffix("."), recurrent_module(stack, nonlinearity)
            )
        linear = nn.Linear(chain.stacks[-1].output_size, chain.classes, bias=chain.bias)
        place_module(self, chain.linear, linear)
        if chain.embedding is not None:
            embedding = nn.Embedding(chain.symbols, chain.stacks[0].input_size)
            if chain.tied:
                embedding.weight = linear.weight
            place_module(self, chain.embedding, embedding)

    def forward(
        self,
        inputs: Tensor,  # symbols (batch, time), int64; or values (batch, time, features)
        state: State | None = None,
        lengths: Tensor | None = None,  # (batch,), on the CPU; None: all sequences are full
    ) -> tuple[Tensor, State]:  # (batch, time, classes), or (batch, classes) where pooled
        """Outputs, and the state of every stack at the end."""
        chain = self.chain
        values: Any = inputs
        if chain.embedding is not None:
            values = self.get_submodule(chain.embedding)(inputs)  # (batch, time, values)
        else:
            if not inputs.is_floating_point():
                values = functional.one_hot(inputs, chain.symbols)
            values = values.to(next(self.parameters()).dtype)
        if lengths is not None:
            values = rnn.pack_padded_sequence(values, lengths, True, enforce_sorted=False)
        states = []
        for k, stack in enumerate(chain.stacks):
            layer = self.get_submodule(stack.prefix.removesuffix("."))
            values, after = layer(values, None if state is None else state[k])
            states.append(after)
        if lengths is not None:
            values, _ = rnn.pad_packed_sequence(values, True, total_length=inputs.shape[1])
        if self.pooling is not None:
            values = self._pool(self.pooling, values, lengths)
        outputs: Tensor = self.get_submodule(chain.linear)(values)
        return outputs, tuple(states)

    def _pool(
        self,
        pooling: Pooling,
        values: Tensor,  # (batch, time, features), zeros beyond the lengths
        lengths: Tensor | None,
    ) -> Tensor:  # (batch, features)
        batch, time, features = values.shape
        if lengths is None:
            lengths = torch.full((batch,), time)
        lengths = lengths.to(values.device)
        match pooling:
            case "mean":
                return values.sum(1) / lengths[:, None]
            case "max":
                beyond = torch.arange(time, device=values.device) >= lengths[:, None]
                return values.masked_fill(beyond[:, :, None], -torch.inf).amax(1)
            case "last":
                last = values[torch.arange(batch, device=values.device), lengths - 1]
                if not self.chain.stacks[-1].bidirectional:
                    return last
                half = features // 2  # the reverse direction ends at the first step
                return torch.cat([last[:, :half], values[:, 0, half:]], 1)


def place_module(root: nn.Module, path: str, module: nn.Module) -> None:
    """Put a module at a dotted path, creating plain modules on the way."""
    *way, name = path.split(".")
    for step in way:
        if step not in dict(root.named_children()):
            root.add_module(step, nn.Module())
        root = root.get_submodule(step)
    root.add_module(name, module)
