"""Runs a recurrent stack layer by layer, and records the inputs and outputs of each layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import rnn

from ttcompress.layers.stacks import layers_of, nonlinearity_of
from ttcompress.model.weights import RecurrentStack

Inputs = Tensor | rnn.PackedSequence
State = Tensor | tuple[Tensor, ...]
"""As torch's layers take them, in any of their forms."""


@dataclass(frozen=True, eq=False)
class LayerPass:
    """One batch's pass through a layer.

    `inputs` is (batch, time, features), `outputs` (batch, time, directions x output), `first` the
    hidden state before it, (directions, batch, output); `lengths` is (batch,) on the CPU, None if
    all sequences are full. `before` is (batch, time, output), the hidden states that a user's loop
    gave to its cell, which it may have changed between two steps; None for a layer.
    """

    inputs: Tensor
    outputs: Tensor
    first: Tensor
    lengths: Tensor | None = None
    before: Tensor | None = None

    def hidden(self, direction: int) -> Tensor:  # (batch, time, output)
        """The output before every step: the inputs of a direction's `weight_hh`."""
        if self.before is not None:
            return self.before
        own = self.outputs.chunk(len(self.first), 2)[direction]
        first = self.first[direction][:, None]
        return torch.cat([own[:, 1:], first] if direction else [first, own[:, :-1]], 1)

    def in_loops(self, steps: int) -> LayerPass:
        """The same where sequences of one step are the steps of loops, all first ones first."""
        inputs, outputs, before = (
            values.reshape(steps, -1, values.shape[2]).transpose(0, 1)
            for values in (self.inputs, self.outputs, self.first.transpose(0, 1))
        )
        return LayerPass(inputs, outputs, before[None, :, 0], before=before)

    @property
    def real(self) -> Tensor:  # (batch, time), bool
        """Which positions are not padding."""
        count, time = self.inputs.shape[:2]
        if self.lengths is None:
            return torch.ones(count, time, dtype=torch.bool)
        return torch.arange(time) < self.lengths[:, None]

    def flat(self, values: Tensor) -> Tensor:  # (batch, time, n) -> (positions, n)
        """The real positions of values aligned with the inputs."""
        return values.flatten(0, 1) if self.lengths is None else values[self.real]


class LayerwiseStack:
    """A stack that runs layer by layer, with the call of torch's own.

    Args:
        stack: the geometry.
        tensors: the values, by the names in the model's state dict.
        note: called with the passes of all layers at every call.
        like: the module to behave like: batch first or not, tanh or relu. Without one, batch first
            and tanh.
    """

    def __init__(
        self,
        stack: RecurrentStack,
        tensors: Mapping[str, Tensor],
        note: Callable[[tuple[LayerPass, ...]], None],
        like: nn.RNNBase | None = None,
    ) -> None:
        kind = nonlinearity_of(like)
        self._layers = [layer.module(tensors.__getitem__, kind) for layer in layers_of(stack)]
        for layer in self._layers:
            layer.batch_first = like is None or like.batch_first
        self._note = note

    def __call__(self, input: Inputs, hx: State | None = None) -> tuple[Inputs, State]:
        """Run as torch's layer would."""
        count = len(self._layers)
        states: Sequence[State | None] = [None] * count
        if isinstance(hx, Tensor):
            states = hx.chunk(count)
        elif hx is not None:
            states = list(zip(*(member.chunk(count) for member in hx), strict=True))
        passes, lasts = [], []
        for layer, state in zip(self._layers, states, strict=True):
            output, last = layer(input, state)
            passes.append(_layer_pass(layer, input, state, output))
            lasts.append(last)
            input = output
        self._note(tuple(passes))
        if isinstance(lasts[0], Tensor):
            return input, torch.cat(lasts)
        return input, tuple(map(torch.cat, zip(*lasts, strict=True)))


class CellSteps:
    """Collects the steps of loops around one cell; those of one loop become one pass.

    A loop begins where the state is zero or the batch another.
    """

    def __init__(self) -> None:
        self._loops: list[list[tuple[Tensor, Tensor, Tensor]]] = []

    def add(self, input: Tensor, hx: State | None, output: State) -> None:
        """Add a call, with the arguments and the result of torch's cell."""
        members = [hx, output] if hx is not None else [output]
        *given, after = (one if isinstance(one, Tensor) else one[0] for one in members)
        before = given[0] if given else torch.zeros_like(after)
        step = tuple(one.detach().reshape(-1, one.shape[-1]) for one in (input, before, after))
        if not self._loops or not before.any() or len(self._loops[-1][-1][0]) != len(step[0]):
            self._loops.append([])
        self._loops[-1].append((step[0], step[1], step[2]))

    def passes(self) -> list[tuple[LayerPass, ...]]:
        """One for each loop so far."""
        made: list[tuple[LayerPass, ...]] = []
        for loop in self._loops:
            inputs, before, outputs = (torch.stack(values, 1) for values in zip(*loop, strict=True))
            made.append((LayerPass(inputs, outputs, before[None, :, 0], before=before),))
        return made


def _layer_pass(
    layer: nn.RNNBase, inputs: Inputs, state: State | None, outputs: Inputs
) -> LayerPass:
    def batch_first(values: Inputs) -> tuple[Tensor, Tensor | None]:
        if isinstance(values, rnn.PackedSequence):
            padded, lengths = rnn.pad_packed_sequence(values, batch_first=True)
            return padded, lengths
        if values.dim() == 2:
            return values[None], None
        return values if layer.batch_first else values.transpose(0, 1), None

    (values, lengths), (after, _) = batch_first(inputs), batch_first(outputs)
    if state is None:
        directions = 2 if layer.bidirectional else 1
        first = after.new_zeros(directions, len(after), after.shape[2] // directions)
    else:
        first = state if isinstance(state, Tensor) else state[0]
        first = first if first.dim() == 3 else first[:, None]
    return LayerPass(values.detach(), after, first, lengths)
