"""A stack and its inputs enter; what each of its layers saw, and its outputs, leave."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import rnn

from ttcompress.layers.stacks import layers_of
from ttcompress.model.weights import RecurrentStack

Inputs = Tensor | rnn.PackedSequence
State = Tensor | tuple[Tensor, ...]
"""As torch's layers take them, in any of their forms."""


@dataclass(frozen=True, eq=False)
class Ran:
    """One batch that went through a layer.

    `inputs` is (batch, time, features), `outputs` (batch, time, directions x output), `first` the
    hidden state before it, (directions, batch, output); `lengths` (batch,) on the CPU, None where
    all sequences are full.
    """

    inputs: Tensor
    outputs: Tensor
    first: Tensor
    lengths: Tensor | None = None

    def hidden(self, direction: int) -> Tensor:  # (batch, time, output)
        """The output before every step: what the `weight_hh` of a direction saw."""
        own = self.outputs.chunk(len(self.first), 2)[direction]
        first = self.first[direction][:, None]
        return torch.cat([own[:, 1:], first] if direction else [first, own[:, :-1]], 1)

    @property
    def real(self) -> Tensor:  # (batch, time), bool
        """Which positions are no padding."""
        count, time = self.inputs.shape[:2]
        if self.lengths is None:
            return torch.ones(count, time, dtype=torch.bool)
        return torch.arange(time) < self.lengths[:, None]

    def flat(self, values: Tensor) -> Tensor:  # (batch, time, n) -> (positions, n)
        """The real positions of something that stands beside the inputs."""
        return values.flatten(0, 1) if self.lengths is None else values[self.real]


class Layered:
    """A stack that runs layer by layer, called as torch's own; the runs of every call are noted.

    It is batch first and an RNN's nonlinearity tanh, unless it is to be like a module.
    """

    def __init__(
        self,
        stack: RecurrentStack,
        tensors: Mapping[str, Tensor],
        note: Callable[[tuple[Ran, ...]], None],
        like: nn.RNNBase | None = None,
    ) -> None:
        relu = like is not None and like.mode == "RNN_RELU"
        self._layers = [
            layer.module(tensors.__getitem__, "relu" if relu else "tanh")
            for layer in layers_of(stack)
        ]
        for layer in self._layers:
            layer.batch_first = like is None or like.batch_first
        self._note = note

    def __call__(self, input: Inputs, hx: State | None = None) -> tuple[Inputs, State]:
        """As torch's."""
        runs, lasts = [], []
        for layer, first in zip(self._layers, self._by_layer(hx), strict=True):
            output, last = layer(input, first)
            runs.append(_ran(layer, input, first, output))
            lasts.append(last)
            input = output
        self._note(tuple(runs))
        if isinstance(lasts[0], Tensor):
            return input, torch.cat(lasts)
        return input, tuple(map(torch.cat, zip(*lasts, strict=True)))

    def _by_layer(self, hx: State | None) -> Sequence[State | None]:
        count = len(self._layers)
        if hx is None:
            return [None] * count
        if isinstance(hx, Tensor):
            return hx.chunk(count)
        return list(zip(*(member.chunk(count) for member in hx), strict=True))


def _ran(layer: nn.RNNBase, inputs: Inputs, state: State | None, outputs: Inputs) -> Ran:
    values, lengths = _batch_first(inputs, layer.batch_first)
    after, _ = _batch_first(outputs, layer.batch_first)
    directions = 2 if layer.bidirectional else 1
    if state is None:
        first = after.new_zeros(directions, len(after), after.shape[2] // directions)
    else:
        first = state if isinstance(state, Tensor) else state[0]
        first = first if first.dim() == 3 else first[:, None]
    return Ran(values.detach(), after, first, lengths)


def _batch_first(values: Inputs, already: bool) -> tuple[Tensor, Tensor | None]:
    """(batch, time, features), and the lengths of packed sequences."""
    if isinstance(values, rnn.PackedSequence):
        padded, lengths = rnn.pad_packed_sequence(values, batch_first=True)
        return padded, lengths
    if values.dim() == 2:
        return values[None], None
    return values if already else values.transpose(0, 1), None
