"""Runs one recurrent layer through time, by the equations of `torch.nn.LSTM`, `GRU` and `RNN`.

`run_loop` steps in Python, either in differentiable operations or, for inference, in memory
allocated once. `run_scan` is the same loop as one node of a traced graph with any number of steps,
for export. A state is a tuple whose first member is the hidden state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch._higher_order_ops import scan

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

    def project(self, x: Tensor) -> Tensor:  # (..., input) -> (..., gates * hidden)
        """The inputs' share of all steps at once, with every bias that can be added early.

        Not a GRU's `bias_hh`: the reset gate multiplies the hidden share, bias included.
        """
        bias = self.bias_ih
        if bias is not None and self.bias_hh is not None and self.mode != "GRU":
            bias = bias + self.bias_hh
        projected = self.ih(x.flatten(0, -2), bias)
        return projected.reshape(*x.shape[:-1], projected.shape[-1])


LayerRun = Callable[
    [Sequence[Direction], Tensor, Sequence[State], list[int] | None], tuple[Tensor, list[State]]
]


def run_loop(
    layer: Sequence[Direction],
    data: Tensor,
    states: Sequence[State],
    sizes: list[int] | None,
    *,
    in_place: bool,
) -> tuple[Tensor, list[State]]:
    """Run all directions of one layer, step by step.

    Args:
        layer: its directions.
        data: (time, batch, input), or (values, input) if `sizes` gives the batch of each step.
        states: the first state of each direction.
        sizes: None unless packed.
        in_place: write into memory allocated once; only without gradients.

    Returns:
        The outputs of all directions side by side, and the last state of each.
    """
    width = states[0][0].shape[-1]
    whole = data.new_empty(*data.shape[:-1], width * len(layer)) if in_place else None
    outputs, lasts = [], []
    for k, (direction, state) in enumerate(zip(layer, states, strict=True)):
        inputs, places = _steps(direction.project(data), sizes), None
        if whole is not None:
            places = _steps(whole[..., k * width : (k + 1) * width], sizes)
        hidden, last = _walk(direction, inputs, state, places)
        lasts.append(last)
        if whole is None:
            outputs.append(torch.stack(hidden) if sizes is None else torch.cat(hidden))
    return torch.cat(outputs, dim=-1) if whole is None else whole, lasts


def run_scan(
    layer: Sequence[Direction], data: Tensor, states: Sequence[State], sizes: list[int] | None
) -> tuple[Tensor, list[State]]:
    """Like `run_loop`, as one `scan` per direction in the traced graph; `sizes` is always None."""
    outputs, lasts = [], []
    for direction, state in zip(layer, states, strict=True):

        def combine(carry: State, x: Tensor, on: Direction = direction) -> tuple[State, Tensor]:
            carry = step(on, x, carry)
            return carry, carry[0].clone()  # a scan's outputs must not share memory

        inputs = direction.project(data)
        last, output = scan(combine, tuple(state), inputs, dim=0, reverse=direction.reverse)
        outputs.append(output)
        lasts.append(last)
    return torch.cat(outputs, dim=-1), lasts


def _steps(data: Tensor, sizes: list[int] | None) -> tuple[Tensor, ...]:
    """One tensor (batch, ...) for each step."""
    return data.unbind(0) if sizes is None else torch.split(data, sizes)


def _walk(
    layer: Direction,
    inputs: Sequence[Tensor],  # (batch, gates * hidden) for each step; the batch may change
    state: State,
    places: Sequence[Tensor] | None,  # where each hidden state is written; None: with gradients
) -> tuple[list[Tensor], State]:
    """Step through time over the sequences that are running; the rest of the batch waits.

    Going forwards, the waiting ones have ended; in reverse, they have not begun. In both cases
    their rows of the whole state are left alone.
    """
    if places is not None:
        state = (state[0], *(memory.clone() for memory in state[1:]))  # it is overwritten
    whole, batch, times, hidden = state, -1, range(len(inputs)), list(inputs)
    for time in reversed(times) if layer.reverse else times:
        if inputs[time].shape[0] != batch:
            batch = inputs[time].shape[0]
            whole = _replace_rows(whole, state)
            state = tuple(member[:batch] for member in whole)
            step_in_place = None if places is None else _IN_PLACE[layer.mode](layer, inputs[time])
        if places is None or step_in_place is None:
            state = step(layer, inputs[time], state)
        else:
            state = step_in_place(inputs[time], state, places[time])
        hidden[time] = state[0]
    return hidden, _replace_rows(whole, state)


def _replace_rows(whole: State, running: State) -> State:
    """The whole state with its first rows replaced."""
    return tuple(
        new if len(new) == len(old) else torch.cat([new, old[len(new) :]])
        for old, new in zip(whole, running, strict=True)
    )


def step(layer: Direction, inputs: Tensor, state: State) -> State:
    """One differentiable step; `inputs` is (batch, gates * hidden) from `Direction.project`."""
    if layer.mode == "LSTM":
        hidden, memory = state
        entry, forget, candidate, exit_ = layer.hh(hidden, inputs).chunk(4, dim=-1)
        # c' = f c + i g and h' = o tanh(c'), with i, f, g, o torch's order of the gates
        memory = forget.sigmoid() * memory + entry.sigmoid() * candidate.tanh()
        hidden = exit_.sigmoid() * memory.tanh()
        return (hidden if layer.hr is None else layer.hr(hidden)), memory
    if layer.mode == "GRU":
        (hidden,) = state
        input_reset, input_update, input_new = inputs.chunk(3, dim=-1)
        reset, update, new = layer.hh(hidden, layer.bias_hh).chunk(3, dim=-1)
        # n = tanh(n_x + r n_h) and h' = (1 - z) n + z h, written with one product less
        new = (input_new + (input_reset + reset).sigmoid() * new).tanh()
        return (new + (input_update + update).sigmoid() * (hidden - new),)
    total = layer.hh(state[0], inputs)
    return (total.tanh() if layer.mode == "RNN_TANH" else total.relu(),)


# The same steps in place, for inputs of one shape: each function allocates what a step needs, and
# returns one that takes inputs and state and writes the next hidden state to its third argument.


def _lstm_in_place(layer: Direction, inputs: Tensor) -> InPlaceStep:
    batch, hh, hr = inputs.shape[0], layer.hh, layer.hr
    gates = torch.empty_like(inputs)
    entry, forget, candidate, exit_ = gates.chunk(4, dim=-1)
    entry_forget = gates[:, : 2 * entry.shape[1]]
    squashed, scratch = torch.empty_like(entry), hh.scratch(batch)
    hr_scratch = None if hr is None else hr.scratch(batch)

    def run(inputs: Tensor, state: State, out: Tensor) -> State:
        hidden, memory = state  # the memory is overwritten
        hh.into(gates, hidden, inputs, scratch)
        entry_forget.sigmoid_()
        candidate.tanh_()
        exit_.sigmoid_()
        memory.mul_(forget).addcmul_(entry, candidate)  # f c + i g
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
        # n = tanh(n_x + r n_h); lerp gives (1 - z) n + z h
        torch.addcmul(inputs[:, 2 * width :], reset, new, out=new).tanh_()
        return (torch.lerp(new, state[0], update, out=out),)

    return run


def _rnn_in_place(layer: Direction, inputs: Tensor) -> InPlaceStep:
    scratch = layer.hh.scratch(inputs.shape[0])
    squash = torch.tanh_ if layer.mode == "RNN_TANH" else torch.relu_

    def run(inputs: Tensor, state: State, out: Tensor) -> State:
        layer.hh.into(out, state[0], inputs, scratch)
        return (squash(out),)

    return run


_IN_PLACE: dict[Mode, Callable[[Direction, Tensor], InPlaceStep]] = {
    "LSTM": _lstm_in_place,
    "GRU": _gru_in_place,
    "RNN_TANH": _rnn_in_place,
    "RNN_RELU": _rnn_in_place,
}
