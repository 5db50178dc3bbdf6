"""One time step: projected inputs and a state enter, the next state leaves.

`step` is the plain form, for gradients and for export. `in_place_step` makes the form that
inference runs in a loop: the same arithmetic on memory that is allocated once. Equations are those
of `torch.nn.LSTM`, `GRU` and `RNN`; states are tuples whose first member is the hidden state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ttcompress.layers.products import Product

Mode = Literal["LSTM", "GRU", "RNN_TANH", "RNN_RELU"]
State = tuple[Tensor, ...]
InPlaceStep = Callable[[Tensor, State, Tensor], State]


@dataclass(frozen=True, eq=False)
class Direction:
    """One layer in one direction, ready to run."""

    mode: Mode
    ih: Product
    hh: Product
    hr: Product | None
    bias_ih: Tensor | None
    bias_hh: Tensor | None
    reverse: bool = False

    def project(self, x: Tensor) -> Tensor:  # (values, input) -> (values, gates * hidden)
        """The inputs' share of every step at once, with all biases that may be added early.

        A GRU's `bias_hh` must wait: its new gate multiplies the hidden share before adding it.
        """
        if self.bias_ih is None or self.bias_hh is None:
            return self.ih(x)
        return self.ih(x, self.bias_ih if self.mode == "GRU" else self.bias_ih + self.bias_hh)


def step(layer: Direction, inputs: Tensor, state: State) -> State:
    """One differentiable step; `inputs` is (batch, gates * hidden) from `Direction.project`."""
    if layer.mode == "LSTM":
        return _lstm(layer, inputs, state)
    if layer.mode == "GRU":
        return _gru(layer, inputs, state)
    total = layer.hh(state[0], inputs)
    return (total.tanh() if layer.mode == "RNN_TANH" else total.relu(),)


def _lstm(layer: Direction, inputs: Tensor, state: State) -> State:
    hidden, memory = state
    entry, forget, candidate, exit_ = layer.hh(hidden, inputs).chunk(4, dim=-1)
    memory = forget.sigmoid() * memory + entry.sigmoid() * candidate.tanh()
    hidden = exit_.sigmoid() * memory.tanh()
    return (hidden if layer.hr is None else layer.hr(hidden)), memory


def _gru(layer: Direction, inputs: Tensor, state: State) -> State:
    (hidden,) = state
    input_reset, input_update, input_new = inputs.chunk(3, dim=-1)
    reset, update, new = layer.hh(hidden, layer.bias_hh).chunk(3, dim=-1)
    new = (input_new + (input_reset + reset).sigmoid() * new).tanh()
    return (new + (input_update + update).sigmoid() * (hidden - new),)


def in_place_step(layer: Direction, inputs: Tensor) -> InPlaceStep:
    """A step for inputs of this shape that writes the hidden state to its third argument.

    An LSTM's memory cell is overwritten: hand in a copy.
    """
    if layer.mode == "LSTM":
        return _lstm_in_place(layer, inputs)
    if layer.mode == "GRU":
        return _gru_in_place(layer, inputs)
    scratch = layer.hh.scratch(inputs.shape[0])
    squash = torch.tanh_ if layer.mode == "RNN_TANH" else torch.relu_

    def run(inputs: Tensor, state: State, out: Tensor) -> State:
        layer.hh.into(out, state[0], inputs, scratch)
        return (squash(out),)

    return run


def _lstm_in_place(layer: Direction, inputs: Tensor) -> InPlaceStep:
    batch, hh, hr = inputs.shape[0], layer.hh, layer.hr
    gates = torch.empty_like(inputs)
    entry, forget, candidate, exit_ = gates.chunk(4, dim=-1)
    entry_forget = gates[:, : 2 * entry.shape[1]]
    squashed, scratch = torch.empty_like(entry), hh.scratch(batch)
    hr_scratch = None if hr is None else hr.scratch(batch)

    def run(inputs: Tensor, state: State, out: Tensor) -> State:
        hidden, memory = state
        hh.into(gates, hidden, inputs, scratch)
        entry_forget.sigmoid_()
        candidate.tanh_()
        exit_.sigmoid_()
        memory.mul_(forget).addcmul_(entry, candidate)
        torch.tanh(memory, out=squashed)
        if hr is None:
            torch.mul(exit_, squashed, out=out)
        else:
            hr.into(out, squashed.mul_(exit_), None, hr_scratch)
        return out, memory

    return run


def _gru_in_place(layer: Direction, inputs: Tensor) -> InPlaceStep:
    hh, bias = layer.hh, layer.bias_hh
    width = inputs.shape[1] // 3
    gates = torch.empty_like(inputs)
    reset_update, new = gates[:, : 2 * width], gates[:, 2 * width :]
    reset, update = reset_update.chunk(2, dim=-1)
    scratch = hh.scratch(inputs.shape[0])

    def run(inputs: Tensor, state: State, out: Tensor) -> State:
        hh.into(gates, state[0], bias, scratch)
        reset_update.add_(inputs[:, : 2 * width]).sigmoid_()
        torch.addcmul(inputs[:, 2 * width :], reset, new, out=new).tanh_()
        return (torch.lerp(new, state[0], update, out=out),)

    return run
