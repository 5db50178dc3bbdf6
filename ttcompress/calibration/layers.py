"""One recurrent layer and its inputs enter; what its two matrices saw, and its outputs, leave."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.utils import rnn

from ttcompress.calibration.sources import Sequences
from ttcompress.modules.geometry import DirectionNames, direction_names, tensor_shapes
from ttcompress.tasks.recurrent_model import recurrent_module
from ttcompress.weights import RecurrentStack


@dataclass(frozen=True, eq=False)
class Ran:
    """One batch that went through a layer.

    `hidden` has for each direction the output before every step, (batch, time, output): what its
    `weight_hh` saw.
    """

    inputs: Sequences
    hidden: tuple[Tensor, ...]
    outputs: Sequences


@dataclass(frozen=True)
class Layer:
    """One layer of a stack, in all its directions: its own geometry, and names in the stack's."""

    stack: RecurrentStack
    alone: RecurrentStack
    directions: tuple[DirectionNames, ...]

    def module(self, tensors: Mapping[str, Tensor]) -> nn.RNNBase:
        """torch's layer, batch first, with values by their full names."""
        module = recurrent_module(self.alone)
        own = direction_names(self.alone)
        state = {
            there: tensors[self.stack.prefix + here].float()
            for names, mine in zip(self.directions, own, strict=True)
            for here, there in zip(names.present, mine.present, strict=True)
        }
        module.load_state_dict(state)
        return module.eval()


def layers_of(stack: RecurrentStack) -> tuple[Layer, ...]:
    """The layers of a stack from the first to the last."""
    names, count = direction_names(stack), 2 if stack.bidirectional else 1
    shapes = tensor_shapes(stack)
    layers = []
    for start in range(0, len(names), count):
        directions = names[start : start + count]
        size = shapes[directions[0].weight_ih][1]
        alone = replace(stack, prefix="", num_layers=1, input_size=size)
        layers.append(Layer(stack, alone, directions))
    return tuple(layers)


def run_layer(module: nn.RNNBase, batches: Sequence[Sequences]) -> Iterator[Ran]:
    """Run a layer over batches, its own state carried on where the model carried one."""
    state = None
    for batch in batches:
        count = len(batch.values)
        if not batch.goes_on or state is None or _first(state).shape[1] != count:
            state = None
        start = torch.zeros(0) if state is None else _first(state)
        with torch.no_grad():
            outputs, state = module(_packed(batch), state)
        if batch.lengths is not None:
            outputs, _ = rnn.pad_packed_sequence(outputs, True, total_length=batch.values.shape[1])
        after = Sequences(outputs, batch.lengths, batch.goes_on)
        yield Ran(batch, tuple(_before(outputs, start, module)), after)


def _packed(batch: Sequences) -> Tensor | rnn.PackedSequence:
    if batch.lengths is None:
        return batch.values
    return rnn.pack_padded_sequence(batch.values, batch.lengths, True, enforce_sorted=False)


def _first(state: Tensor | tuple[Tensor, Tensor]) -> Tensor:  # (directions, batch, output)
    return state[0] if isinstance(state, tuple) else state


def _before(outputs: Tensor, start: Tensor, module: nn.RNNBase) -> Iterator[Tensor]:
    """For each direction the output before every step, (batch, time, output)."""
    parts = outputs.chunk(2, 2) if module.bidirectional else (outputs,)
    for direction, part in enumerate(parts):
        first = start[direction][:, None] if start.numel() else torch.zeros_like(part[:, :1])
        yield torch.cat([part[:, 1:], first] if direction else [first, part[:, :-1]], 1)
