"""Builds dense recurrent layers in the fastest form for ONNX Runtime, for comparison.

Each layer is one fused operation, with both directions in it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from torch import nn

from ttcompress.targets.onnx.operators import GATE_ORDER, kind_of, operator_settings
from ttcompress.targets.onnx.quantize import round_weights

_OPSET, _IR = 18, 9


def dense_model(layer: nn.RNNBase) -> ModelProto | None:
    """Build the layer on `x` (time, batch, input) from zero states; None if it has a projection.

    ONNX's LSTM has no projection.
    """
    if layer.proj_size:
        return None
    nodes: list[NodeProto] = []
    weights: dict[str, NDArray[np.generic]] = {"flat": np.array([0, 0, -1], np.int64)}
    directions = 2 if layer.bidirectional else 1
    settings = operator_settings(layer.mode, layer.hidden_size, directions)
    for k in range(layer.num_layers):
        taken = "x" if k == 0 else f"y{k - 1}"
        tensors = {f"{name}{k}": value for name, value in _tensors(layer, k).items()}
        weights |= tensors
        nodes += [
            helper.make_node(kind_of(layer.mode), [taken, *tensors], [f"apart{k}"], **settings),
            helper.make_node("Transpose", [f"apart{k}"], [f"turned{k}"], perm=[0, 2, 1, 3]),
            helper.make_node("Reshape", [f"turned{k}", "flat"], [f"y{k}"]),
        ]
    sizes: list[str | int | None] = ["time", "batch", layer.input_size]
    graph = helper.make_graph(
        nodes,
        "dense",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, sizes)],
        [helper.make_tensor_value_info(f"y{layer.num_layers - 1}", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    opset = helper.make_opsetid("", _OPSET)
    return helper.make_model(graph, opset_imports=[opset], ir_version=_IR)


def dense_int8(model: ModelProto) -> ModelProto | None:
    """The same with the LSTM's weights in int8; None for other kinds, which ONNX Runtime lacks."""
    if not any(node.op_type == "LSTM" for node in model.graph.node):
        return None
    return round_weights(model, ["LSTM"])


def _tensors(layer: nn.RNNBase, k: int) -> dict[str, NDArray[np.generic]]:
    """W (directions, rows, input), R (directions, rows, hidden), B (directions, 2 rows)."""
    ends = ("", "_reverse") if layer.bidirectional else ("",)
    found = {
        letter: np.stack([_reordered(layer, f"weight_{part}_l{k}{end}") for end in ends])
        for letter, part in (("W", "ih"), ("R", "hh"))
    }
    if layer.bias:
        biases = [
            [_reordered(layer, f"bias_{part}_l{k}{end}") for part in ("ih", "hh")] for end in ends
        ]
        found["B"] = np.stack([np.concatenate(pair) for pair in biases])
    return found


def _reordered(layer: nn.RNNBase, name: str) -> NDArray[np.generic]:
    order = GATE_ORDER[kind_of(layer.mode)]
    blocks = layer.get_parameter(name).detach().float().chunk(len(order))
    return np.concatenate([blocks[place].numpy() for place in order])
