"""Turns the products of an ONNX model from float32 to int8.

In dynamic quantisation, weights are rounded once and inputs at every call; here also inside Scans.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
from onnx import ModelProto
from onnxruntime.quantization import QuantType, quantize_dynamic

QUANTIZED = ("MatMul", "LSTM", "Gather")
"""Matrix products, layers that are one operator, and lookups in embeddings."""


def quantize_model(model: ModelProto) -> ModelProto:
    """Quantise every constant matrix of the graph to int8."""
    return round_weights(model, QUANTIZED)


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
