"""A stack enters; its layers, each as a module of its own with its values, leave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ttcompress.geometry import DirectionNames, direction_names, stored_name, tensor_shapes
from ttcompress.tasks.recurrent_model import Nonlinearity, recurrent_module
from ttcompress.weights import RecurrentStack


@dataclass(frozen=True)
class Layer:
    """One layer of a stack, in all its directions: its own geometry, and names in the stack's."""

    stack: RecurrentStack
    alone: RecurrentStack
    directions: tuple[DirectionNames, ...]

    def module(
        self, tensor: Callable[[str], Tensor], nonlinearity: Nonlinearity = "tanh"
    ) -> nn.RNNBase:
        """torch's layer, batch first, in float32, with the tensors of its full names.

        Each is asked for when its turn comes and then dropped: they may be large.
        """
        module = recurrent_module(self.alone, nonlinearity)
        own = direction_names(self.alone)
        with torch.no_grad():
            for names, mine in zip(self.directions, own, strict=True):
                for here, there in zip(names.present, mine.present, strict=True):
                    module.get_parameter(there).copy_(tensor(stored_name(self.stack, here)))
        return module.eval()


def layers_of(stack: RecurrentStack) -> tuple[Layer, ...]:
    """The layers of a stack from the first to the last; a cell is one."""
    names, count = direction_names(stack), 2 if stack.bidirectional else 1
    shapes = tensor_shapes(stack)
    layers = []
    for start in range(0, len(names), count):
        directions = names[start : start + count]
        size = shapes[directions[0].weight_ih][1]
        alone = replace(stack, prefix="", num_layers=1, input_size=size, cell=False, raw=False)
        layers.append(Layer(stack, alone, directions))
    return tuple(layers)
