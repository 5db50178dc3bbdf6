"""Turns the products of an ONNX model from float32 to int8.

In dynamic quantisation, weights are rounded once and inputs at every call; here also inside Scans.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
from onnx import GraphProto, ModelProto, NodeProto, helper
from onnxruntime.quantization import QuantType, quantize_dynamic

QUANTIZED = ("MatMul", "Gather")
"""Matrix products, and lookups in embeddings."""


def quantize_model(model: ModelProto) -> ModelProto:
    """Quantise every constant matrix of the graph to int8."""
    plain = ModelProto()
    plain.CopyFrom(model)
    _split_gemms(plain.graph)
    return round_weights(plain, QUANTIZED)


def round_weights(model: ModelProto, operations: Sequence[str]) -> ModelProto:
    """Apply onnxruntime's dynamic quantisation to these operations."""
    root = logging.getLogger()  # it recommends a preprocessing that would change nothing here
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        with TemporaryDirectory() as folder:
            path = Path(folder) / "int8.onnx"
            quantize_dynamic(
                model,
                path,
                op_types_to_quantize=list(operations),
                weight_type=QuantType.QInt8,
                extra_options={"EnableSubgraph": True},
            )
            return onnx.load(path)
    finally:
        root.setLevel(before)


def _split_gemms(graph: GraphProto) -> None:
    """Replace every plain Gemm by MatMul and Add: inside a Scan, only MatMul is quantised."""
    nodes = [part for node in graph.node for part in _split(node)]
    del graph.node[:]
    graph.node.extend(nodes)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _split_gemms(attribute.g)


def _split(node: NodeProto) -> Iterator[NodeProto]:
    settings = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    plain = settings.items() <= {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0}.items()
    if node.op_type != "Gemm" or not plain or len(node.input) < 3:
        yield node
        return
    product = f"{node.output[0]}_product"
    yield helper.make_node("MatMul", node.input[:2], [product], f"{node.name}_product")
    yield helper.make_node("Add", [product, node.input[2]], node.output, f"{node.name}_sum")
