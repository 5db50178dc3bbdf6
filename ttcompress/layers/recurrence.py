"""The recurrence over time: projected inputs and a first state enter, outputs and the last leave.

Three forms of one loop: `run_in_place` for inference, `run_with_gradients`, and `run_as_scan`, a
single node with a free number of steps, for export.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch._higher_order_ops import scan

from ttcompress.layers.steps import Direction, State, in_place_step, step

TimedStep = Callable[[int, State], State]
LayerRun = Callable[
    [Sequence[Direction], Tensor, Sequence[State], list[int] | None], tuple[Tensor, list[State]]
]


def run_in_place(
    layer: Direction, inputs: Sequence[Tensor], state: State, outputs: Sequence[Tensor]
) -> State:
    """Run all steps, writing each hidden state to its place in `outputs`; the last state.

    `inputs` are (batch, gates * hidden) for each step, `outputs` (batch, hidden). The batch may
    change from step to step, as in a packed sequence.
    """

    def step_for(like: Tensor) -> TimedStep:
        run = in_place_step(layer, like)
        return lambda time, state: run(inputs[time], state, outputs[time])

    state = (state[0], *(memory.clone() for memory in state[1:]))
    return _walk(layer.reverse, inputs, state, step_for)[1]


def run_with_gradients(
    layer: Direction, inputs: Sequence[Tensor], state: State
) -> tuple[tuple[Tensor, ...], State]:
    """Run all steps in differentiable operations: the hidden state of each, and the last state."""

    def at(time: int, state: State) -> State:
        return step(layer, inputs[time], state)

    return _walk(layer.reverse, inputs, state, lambda like: at)


def _walk(
    reverse: bool, inputs: Sequence[Tensor], state: State, step_for: Callable[[Tensor], TimedStep]
) -> tuple[tuple[Tensor, ...], State]:
    """Step through time over the sequences that are running, the rest of the batch waiting.

    Forwards the waiting ones have ended, in reverse they have not begun: in both cases their
    rows of the whole state are left alone.
    """
    whole, batch, times = state, -1, range(len(inputs))
    hidden = list(inputs)
    for time in reversed(times) if reverse else times:
        if inputs[time].shape[0] != batch:
            batch = inputs[time].shape[0]
            whole = _updated(whole, state)
            state = tuple(member[:batch] for member in whole)
            run = step_for(inputs[time])
        state = run(time, state)
        hidden[time] = state[0]
    return tuple(hidden), _updated(whole, state)


def _updated(whole: State, running: State) -> State:
    """The whole state with its first rows replaced."""
    return tuple(
        new if len(new) == len(old) else torch.cat([new, old[len(new) :]])
        for old, new in zip(whole, running, strict=True)
    )


def run_as_scan(layer: Direction, inputs: Tensor, state: State) -> tuple[Tensor, State]:
    """The same for inputs (time, batch, gates * hidden), as one `scan` in the traced graph."""

    def combine(carry: State, x: Tensor) -> tuple[State, Tensor]:
        carry = step(layer, x, carry)
        return carry, carry[0].clone()  # a scan's outputs must not share memory

    last, outputs = scan(combine, tuple(state), inputs, dim=0, reverse=layer.reverse)
    return outputs, last


def layer_in_place(
    layer: Sequence[Direction], data: Tensor, states: Sequence[State], sizes: list[int] | None
) -> tuple[Tensor, list[State]]:
    """All directions of one layer without gradients, into one preallocated output.

    Args:
        layer: its directions.
        data: (time, batch, input), or (values, input) where `sizes` says the batch of each step.
        states: one for each direction.
        sizes: None unless packed.

    Returns:
        The outputs of all directions side by side, and the last state of each.
    """
    width = states[0][0].shape[-1]
    output = data.new_empty(*data.shape[:-1], width * len(layer))
    lasts = []
    for direction, state, part in zip(
        layer, states, torch.split(output, width, dim=-1), strict=True
    ):
        inputs = _steps(_projected(direction, data), sizes)
        lasts.append(run_in_place(direction, inputs, state, _steps(part, sizes)))
    return output, lasts


def layer_with_gradients(
    layer: Sequence[Direction], data: Tensor, states: Sequence[State], sizes: list[int] | None
) -> tuple[Tensor, list[State]]:
    """The same in differentiable operations."""
    outputs, lasts = [], []
    for direction, state in zip(layer, states, strict=True):
        inputs = _steps(_projected(direction, data), sizes)
        hidden, last = run_with_gradients(direction, inputs, state)
        outputs.append(torch.stack(hidden) if sizes is None else torch.cat(hidden))
        lasts.append(last)
    return torch.cat(outputs, dim=-1), lasts


def layer_as_scan(
    layer: Sequence[Direction], data: Tensor, states: Sequence[State], sizes: list[int] | None
) -> tuple[Tensor, list[State]]:
    """The same as one graph node for each direction; `sizes` is always None."""
    runs = [
        run_as_scan(direction, _projected(direction, data), state)
        for direction, state in zip(layer, states, strict=True)
    ]
    return torch.cat([output for output, _ in runs], dim=-1), [last for _, last in runs]


def _projected(direction: Direction, data: Tensor) -> Tensor:  # (..., input) -> (..., gates)
    projected = direction.project(data.flatten(0, -2))
    return projected.reshape(*data.shape[:-1], projected.shape[-1])


def _steps(data: Tensor, sizes: list[int] | None) -> tuple[Tensor, ...]:
    """One tensor (batch, ...) for each step."""
    return data.unbind(0) if sizes is None else torch.split(data, sizes)
