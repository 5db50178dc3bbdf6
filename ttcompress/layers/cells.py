"""LSTMCell, GRUCell and RNNCell whose matrices may be trains: one time step of torch's cells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from ttcompress.layers.base import RecurrentHolder
from ttcompress.layers.matrices import choosing_batch, matrix_of
from ttcompress.layers.speed import Run, Way
from ttcompress.layers.stacks import stack_of
from ttcompress.layers.steps import Mode, State, step
from ttcompress.trains.train import Train

_FUSED: dict[Mode, Any] = {
    "LSTM": torch.lstm_cell,
    "GRU": torch.gru_cell,
    "RNN_TANH": torch.rnn_tanh_cell,
    "RNN_RELU": torch.rnn_relu_cell,
}


class Cell(RecurrentHolder):
    """What the three cells share; use one of them. The arguments are those of its base."""

    trains_rebuilt = False  # called once a step, it would rebuild as often as a sequence is long

    @classmethod
    def from_dense(
        cls, module: nn.RNNCellBase, tensors: Mapping[str, Train | Tensor], *, run: Run = "auto"
    ) -> Self:
        """The same cell with some tensors replaced; the others are copied from `module`."""
        everything = {**dict(module.named_parameters()), **tensors}
        nonlinearity = getattr(module, "nonlinearity", "tanh")  # an RNNCell's alone
        cell = cls(stack_of(module), everything, nonlinearity=nonlinearity, run=run)
        return cell.train(module.training)

    def extra_repr(self) -> str:
        """Geometry and way to run."""
        return f"{self.input_size}, {self.hidden_size}, run={self.run!r}"

    def _call(self, input: Tensor, state: State | None) -> State:
        if input.dim() not in (1, 2):
            raise ValueError(f"input has {input.dim()} dimensions; give 1 (unbatched) or 2")
        batched = input.dim() == 2
        x = input if batched else input.unsqueeze(0)
        if x.shape[1] != self.input_size:
            raise RuntimeError(
                f"input.size(-1) is {x.shape[1]}, but the cell's input_size is {self.input_size}"
            )
        state = self._next(x, self._state_in(x, state, batched))
        return state if batched else tuple(member.squeeze(0) for member in state)

    def how(self, batch: int = 1) -> Way:
        """The way that a call of this size would run now."""
        return self._way(batch, 1)

    def _state_in(self, x: Tensor, state: State | None, batched: bool) -> State:
        if state is None:
            zeros = x.new_zeros(x.shape[0], self.hidden_size)
            return (zeros, zeros) if self.mode == "LSTM" else (zeros,)
        wanted = (x.shape[0], self.hidden_size)
        state = state if batched else tuple(member.unsqueeze(0) for member in state)
        for member in state:
            if tuple(member.shape) != wanted:
                raise RuntimeError(
                    f"the state is {tuple(member.shape)}, but this call needs {wanted}"
                )
        return state

    def _next(self, x: Tensor, state: State) -> State:
        (names,) = self._names
        if self._way(choosing_batch(x.shape[0]), 1) == "factored":
            layer = self._direction(names)
            return step(layer, layer.project(x), state)
        weights = (matrix_of(self, name).dense() for name in (names.weight_ih, names.weight_hh))
        biases = (self.bias_ih, self.bias_hh) if self.bias else (None, None)
        first = list(state) if self.mode == "LSTM" else state[0]
        result = _FUSED[self.mode](x, first, *weights, *biases)
        return tuple(result) if self.mode == "LSTM" else (result,)


class LSTMCell(Cell):
    """`torch.nn.LSTMCell` with trains for matrices."""

    kind = "lstm"

    def forward(
        self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """As `torch.nn.LSTMCell.forward`."""
        hidden, memory = self._call(input, hx)
        return hidden, memory


class GRUCell(Cell):
    """`torch.nn.GRUCell` with trains for matrices."""

    kind = "gru"

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """As `torch.nn.GRUCell.forward`."""
        return self._call(input, None if hx is None else (hx,))[0]


class RNNCell(Cell):
    """`torch.nn.RNNCell` with trains for matrices."""

    kind = "rnn"

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """As `torch.nn.RNNCell.forward`."""
        return self._call(input, None if hx is None else (hx,))[0]
