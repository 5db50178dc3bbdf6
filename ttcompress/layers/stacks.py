"""Builds torch's recurrent layers from a geometry, reads it back, and splits stacks into layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ttcompress.model.geometry import (
    DirectionNames,
    direction_names,
    stored_name,
    stored_names,
    tensor_shapes,
)
from ttcompress.model.weights import Kind, RecurrentStack

Nonlinearity = Literal["tanh", "relu"]

NONLINEARITIES: tuple[Nonlinearity, ...] = get_args(Nonlinearity)


@dataclass(frozen=True)
class Layer:
    """One layer of a stack, in all its directions: its own geometry, and names in the stack's."""

    stack: RecurrentStack
    alone: RecurrentStack
    directions: tuple[DirectionNames, ...]

    def module(
        self, tensor: Callable[[str], Tensor], nonlinearity: Nonlinearity = "tanh"
    ) -> nn.RNNBase:
        """Build torch's layer, batch first, in float32, its tensors by their names in the stack."""
        full = {
            there: stored_name(self.stack, here)
            for names, mine in zip(self.directions, direction_names(self.alone), strict=True)
            for here, there in zip(names.present, mine.present, strict=True)
        }
        return dense_layer(self.alone, lambda own: tensor(full[own]), nonlinearity)


def layers_of(stack: RecurrentStack) -> tuple[Layer, ...]:
    """The layers of a stack from the first to the last; a cell counts as one."""
    names, count = direction_names(stack), stack.directions
    shapes = tensor_shapes(stack)
    layers = []
    for start in range(0, len(names), count):
        directions = names[start : start + count]
        size = shapes[directions[0].weight_ih][1]
        alone = replace(stack, prefix="", num_layers=1, input_size=size, cell=False, raw=False)
        layers.append(Layer(stack, alone, directions))
    return tuple(layers)


def recurrent_module(stack: RecurrentStack, nonlinearity: Nonlinearity = "tanh") -> nn.RNNBase:
    """Build torch's layer of this geometry, batch first; a cell becomes a layer.

    A checkpoint does not say an RNN's `nonlinearity`; LSTM and GRU have no choice.
    """
    sizes = {
        "input_size": stack.input_size,
        "hidden_size": stack.hidden_size,
        "num_layers": stack.num_layers,
        "bias": stack.bias,
        "batch_first": True,
        "bidirectional": stack.bidirectional,
    }
    match stack.kind:
        case "lstm":
            return nn.LSTM(**sizes, proj_size=stack.proj_size)
        case "gru":
            return nn.GRU(**sizes)
        case "rnn":
            return nn.RNN(**sizes, nonlinearity=nonlinearity)


def recurrent_cell(stack: RecurrentStack) -> nn.RNNCellBase:
    """Build torch's cell of this geometry; an RNN's has tanh."""
    kind = {"lstm": nn.LSTMCell, "gru": nn.GRUCell, "rnn": nn.RNNCell}[stack.kind]
    made: nn.RNNCellBase = kind(stack.input_size, stack.hidden_size, bias=stack.bias)
    return made


def dense_layer(
    stack: RecurrentStack,
    tensor: Callable[[str], Tensor | None],
    nonlinearity: Nonlinearity = "tanh",
    *,
    batch_first: bool = True,
) -> nn.RNNBase:
    """Build torch's layer of this geometry, in float32 and for evaluation.

    Args:
        stack: the geometry.
        tensor: returns the values of one of the stack's tensors by its name in the model; None
            leaves torch's initial values. Called for one at a time, as they may be large.
        nonlinearity: for an RNN.
        batch_first: the input is (batch, time, input) instead of (time, batch, input).
    """
    module = recurrent_module(stack, nonlinearity)
    module.batch_first = batch_first
    with torch.no_grad():
        for own, name in stored_names(stack).items():
            if (values := tensor(name)) is not None:
                module.get_parameter(own).copy_(values)
            del values  # before the next is read
    return module.eval()


def stack_of(module: nn.RNNBase | nn.RNNCellBase) -> RecurrentStack:
    """The geometry that a dense layer was built with."""
    if isinstance(module, nn.RNNCellBase):
        cells: dict[type[nn.Module], Kind]
        cells = {nn.LSTMCell: "lstm", nn.GRUCell: "gru", nn.RNNCell: "rnn"}
        kind = next(kind for cell, kind in cells.items() if isinstance(module, cell))
        return RecurrentStack(
            "", kind, module.input_size, module.hidden_size, bias=bool(module.bias), cell=True
        )
    kinds: dict[str, Kind] = {"LSTM": "lstm", "GRU": "gru", "RNN_TANH": "rnn", "RNN_RELU": "rnn"}
    return RecurrentStack(
        "",
        kinds[module.mode],
        module.input_size,
        module.hidden_size,
        num_layers=module.num_layers,
        bidirectional=module.bidirectional,
        proj_size=module.proj_size,
        bias=module.bias,
    )


def nonlinearity_of(module: nn.Module | None) -> Nonlinearity:
    """The nonlinearity of an RNN or its cell; "tanh" for any other module, which has no choice."""
    if getattr(module, "mode", "") == "RNN_RELU":  # an old pickle has no attribute `nonlinearity`
        return "relu"
    found: Nonlinearity = getattr(module, "nonlinearity", "tanh")
    return found
