"""The recurrent layers of a compressed model, each by itself: names, modules and calls leave."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from ttcompress.artifact import CompressedModel
from ttcompress.layers.stacks import Nonlinearity, recurrent_module
from ttcompress.layers.swap import replace_layer
from ttcompress.model.geometry import stored_names
from ttcompress.model.weights import RecurrentStack
from ttcompress.targets.onnx.calls import BATCH, EXAMPLE_SIZES, TIME, Call
from ttcompress.targets.onnx.views import see_stored
from ttcompress.trains.train import Train


@dataclass(frozen=True, eq=False)
class Part:
    """Something that becomes a file: a module, and how it is called.

    `name` is empty where the whole model is the part, else the path of a layer in it.
    """

    name: str
    module: nn.Module
    call: Call


def recurrent_parts(
    compressed: CompressedModel, *, few_bits: bool = True, nonlinearity: Nonlinearity = "tanh"
) -> Iterator[Part]:
    """Each recurrent stack as a module of (time, batch, input) and its first state.

    A cell becomes a layer that steps through time.

    Args:
        compressed: the model.
        few_bits: whether the graph is to hold the stored numbers, or their values in float32.
        nonlinearity: of RNNs, which a checkpoint does not tell.
    """
    content = compressed.content()
    by_name = {name: stored for stored in compressed.weights for name in stored.weight.names}
    for stack in compressed.stacks:
        names = stored_names(stack)
        dense = recurrent_module(stack, nonlinearity)
        dense.batch_first = False
        values = {own: content[name] for own, name in names.items()}
        tensors = {n: v if isinstance(v, Train) else v.float() for n, v in values.items()}
        module: nn.Module = replace_layer(dense, tensors).eval()
        for own, name in names.items():
            if few_bits and name in by_name:
                see_stored(module, (own,), by_name[name])
        yield Part(stack.prefix.rstrip("."), module, stack_call(stack))


def stack_call(stack: RecurrentStack) -> Call:
    """Of torch's layer of this geometry with its state, (time, batch, input)."""
    batch, time = EXAMPLE_SIZES[BATCH], EXAMPLE_SIZES[TIME]
    layers = stack.num_layers * (2 if stack.bidirectional else 1)
    hidden = torch.zeros(layers, batch, stack.proj_size or stack.hidden_size)
    x = torch.zeros(time, batch, stack.input_size)
    if stack.kind != "lstm":
        return Call((x, hidden), ({0: TIME, 1: BATCH}, {1: BATCH}), ("x", "h0"), ("y", "hn"))
    memory = torch.zeros(layers, batch, stack.hidden_size)
    axes = ({0: TIME, 1: BATCH}, {1: BATCH}, {1: BATCH})
    return Call((x, (hidden, memory)), axes, ("x", "h0", "c0"), ("y", "hn", "cn"))
