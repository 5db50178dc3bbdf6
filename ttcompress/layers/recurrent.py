"""LSTM, GRU and RNN whose matrices may be trains: torch's inputs enter, torch's outputs leave.

Each takes the place of the `torch.nn` layer of its name: same call, same attributes, same state
dict but for the cores. `run` says how it computes: "factored" loops over small products,
"rebuilt" makes the dense weights and calls torch's fused kernel, "auto" takes the faster.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout
from torch.nn.utils.rnn import PackedSequence

from ttcompress.layers.base import RecurrentHolder
from ttcompress.layers.calls import LayerCall, read_call, read_state, zero_state
from ttcompress.layers.matrices import TrainWeight, matrix_of
from ttcompress.layers.recurrence import (
    LayerRun,
    layer_as_scan,
    layer_in_place,
    layer_with_gradients,
)
from ttcompress.layers.speed import Run, Way
from ttcompress.layers.stacks import stack_of
from ttcompress.layers.steps import Mode, State
from ttcompress.model.weights import RecurrentStack
from ttcompress.trains.train import Train

_FUSED: dict[Mode, Any] = {
    "LSTM": torch.lstm,
    "GRU": torch.gru,
    "RNN_TANH": torch.rnn_tanh,
    "RNN_RELU": torch.rnn_relu,
}


class Recurrent(RecurrentHolder):
    """What the three layers share; use one of them.

    Args:
        stack: the geometry.
        tensors: a train or a tensor for every name that `torch.nn` gives, "weight_ih_l0", ...
        nonlinearity: "tanh" or "relu", of an RNN.
        batch_first: the input is (batch, time, input) and not (time, batch, input).
        dropout: probability, on the output of every layer but the last, while training.
        run: how to compute.
    """

    trains_rebuilt = True

    def __init__(
        self,
        stack: RecurrentStack,
        tensors: Mapping[str, Train | Tensor],
        *,
        nonlinearity: str = "tanh",
        batch_first: bool = False,
        dropout: float = 0.0,
        run: Run = "auto",
    ) -> None:
        super().__init__(stack, tensors, nonlinearity=nonlinearity, run=run)
        self.batch_first = batch_first
        self.dropout = dropout
        self.num_layers = stack.num_layers
        self.bidirectional = stack.bidirectional
        self.proj_size = stack.proj_size

    @classmethod
    def from_dense(
        cls, module: nn.RNNBase, tensors: Mapping[str, Train | Tensor], *, run: Run = "auto"
    ) -> Self:
        """The same layer with some tensors replaced; the others are copied from `module`."""
        everything = {**dict(module.named_parameters()), **tensors}
        layer = cls(
            stack_of(module),
            everything,
            nonlinearity="relu" if module.mode == "RNN_RELU" else "tanh",
            batch_first=module.batch_first,
            dropout=module.dropout,
            run=run,
        )
        return layer.train(module.training)

    @property
    def all_weights(self) -> list[list[TrainWeight | Tensor]]:
        """Matrices and biases of each layer and direction."""
        return [[getattr(self, name) for name in names.present] for names in self._names]

    def flatten_parameters(self) -> None:
        """Nothing to do; here because code written for `torch.nn` calls it."""

    def how(self, batch: int = 1, steps: int = 1) -> Way:
        """The way that a call of this size would run now."""
        return self._way(batch, steps)

    def extra_repr(self) -> str:
        """Geometry and way to run."""
        return (
            f"{self.input_size}, {self.hidden_size}, num_layers={self.num_layers}, "
            f"bidirectional={self.bidirectional}, proj_size={self.proj_size}, run={self.run!r}"
        )

    @property
    def _state_sizes(self) -> tuple[int, ...]:
        hidden = self.proj_size or self.hidden_size
        return (hidden, self.hidden_size) if self.mode == "LSTM" else (hidden,)

    def _call(
        self, input: Tensor | PackedSequence, state: State | None
    ) -> tuple[Tensor | PackedSequence, State]:
        if not torch.compiler.is_exporting():
            result: tuple[Tensor | PackedSequence, State] = self._eagerly(input, state)
            return result
        if isinstance(input, PackedSequence):
            raise ValueError("a packed sequence cannot be exported; pass a padded tensor")
        call, first = self._read(input, state)
        data, last = self._layers(call, first, layer_as_scan)
        return call.output(data), call.state_out(last)

    # Like torch's own layers, a compiler leaves it out of its graph: the loop is fast as it is.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _eagerly(
        self, input: Tensor | PackedSequence, state: State | None
    ) -> tuple[Tensor | PackedSequence, State]:
        call, first = self._read(input, state)
        autocast = _autocast(call.data)
        way = "rebuilt" if autocast and self.run == "auto" else self._way(call.batch, call.steps)
        if way == "rebuilt":
            data, last = self._fused(call, first)
        elif autocast or self._tracked(call.data, *first):
            data, last = self._layers(call, first, layer_with_gradients)
        else:
            data, last = self._layers(call, first, layer_in_place)
        return call.output(data), call.state_out(last)

    def _read(self, input: Tensor | PackedSequence, state: State | None) -> tuple[LayerCall, State]:
        """The checked call and its first state."""
        call = read_call(input, self.batch_first, self.input_size)
        dtype = getattr(self, self._names[0].weight_ih).dtype
        if call.data.dtype != dtype and not _autocast(call.data):
            raise ValueError(
                f"the input is {call.data.dtype}, but the layer's weights are {dtype}; "
                "convert one of them with .to"
            )
        sizes, layers = self._state_sizes, len(self._names)
        if state is None:
            return call, zero_state(call, sizes, layers)
        return call, read_state(call, state, sizes, layers)

    def _tracked(self, *tensors: Tensor) -> bool:
        """Whether autograd records this call."""
        if not torch.is_grad_enabled():
            return False
        return any(t.requires_grad for t in tensors) or any(
            p.requires_grad for p in self.parameters()
        )

    def _layers(self, call: LayerCall, state: State, run: LayerRun) -> tuple[Tensor, State]:
        """Layer by layer, the directions of each side by side."""
        data, sizes, lasts = call.data, call.sizes, []
        directions = 2 if self.bidirectional else 1
        for first in range(0, len(self._names), directions):
            if first and self.dropout:
                data = dropout(data, self.dropout, self.training)
            places = range(first, first + directions)
            layer = [self._direction(self._names[k], reverse=k > first) for k in places]
            states = [tuple(member[k] for member in state) for k in places]
            data, ends = run(layer, data, states, sizes)
            lasts += ends
        return data, tuple(torch.stack(members) for members in zip(*lasts, strict=True))

    def _fused(self, call: LayerCall, state: State) -> tuple[Tensor, State]:
        """The dense weights, and torch's kernel for all layers at once."""
        names = [name for direction in self._names for name in direction.present]
        flat = [matrix_of(self, name).dense() for name in names]
        options = (self.bias, self.num_layers, self.dropout, self.training, self.bidirectional)
        first = list(state) if self.mode == "LSTM" else state[0]
        kernel = _FUSED[self.mode]
        if call.packed is None:
            output, *last = kernel(call.data, first, flat, *options, False)
        else:
            sizes = call.packed.batch_sizes
            output, *last = kernel(call.data, sizes, first, flat, *options)
        return output, tuple(last)


class LSTM(Recurrent):
    """`torch.nn.LSTM` with trains for matrices."""

    kind = "lstm"

    def forward(
        self, input: Tensor | PackedSequence, hx: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor | PackedSequence, tuple[Tensor, Tensor]]:
        """As `torch.nn.LSTM.forward`."""
        output, (hidden, memory) = self._call(input, hx)
        return output, (hidden, memory)


class GRU(Recurrent):
    """`torch.nn.GRU` with trains for matrices."""

    kind = "gru"

    def forward(
        self, input: Tensor | PackedSequence, hx: Tensor | None = None
    ) -> tuple[Tensor | PackedSequence, Tensor]:
        """As `torch.nn.GRU.forward`."""
        output, (hidden,) = self._call(input, None if hx is None else (hx,))
        return output, hidden


class RNN(Recurrent):
    """`torch.nn.RNN` with trains for matrices."""

    kind = "rnn"

    def forward(
        self, input: Tensor | PackedSequence, hx: Tensor | None = None
    ) -> tuple[Tensor | PackedSequence, Tensor]:
        """As `torch.nn.RNN.forward`."""
        output, (hidden,) = self._call(input, None if hx is None else (hx,))
        return output, hidden


def _autocast(data: Tensor) -> bool:
    return torch.is_autocast_enabled(data.device.type)
