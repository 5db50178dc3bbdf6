"""Builds the ONNX file of a part: `build` is the entry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from copy import deepcopy
from math import prod

from onnx import TensorProto
from torch import nn

from ttcompress.layers.swap import replace_layer
from ttcompress.targets.onnx.convert import convert, describe
from ttcompress.targets.onnx.quantize import quantize_model
from ttcompress.targets.onnx.views import see_stored
from ttcompress.targets.target import Part, Written


def build(part: Part, facts: Mapping[str, str], *, int8: bool) -> Written:
    """Build one file in memory, with `facts` and its content noted in it.

    Args:
        part: the model or layer.
        facts: where it comes from; `ttcompress` among them is the version.
        int8: run products in int8, with weights rounded again; otherwise the file has the stored
            numbers, whose values a runtime computes once, when it loads the file.

    Raises:
        TTCompressError: torch cannot export the module.
    """
    module = _with_scans(deepcopy(part.module))
    if not int8:
        for names, stored in part.weights:
            see_stored(module, names, stored)
    model = convert(module.eval(), part.call, fold=int8)
    if int8:
        model = quantize_model(model)
    counts = Counter[str]()
    for tensor in model.graph.initializer:
        counts[TensorProto.DataType.Name(tensor.data_type).lower()] += prod(tensor.dims)
    holds = dict(counts.most_common())
    listed = ", ".join(f"{count} in {type}" for type, count in holds.items())
    describe(model, {**facts, "holds": listed})
    return Written({"": model.SerializeToString(deterministic=True)}, holds)


def _with_scans(model: nn.Module) -> nn.Module:
    """Replace torch's recurrent layers by ours, which the exporter turns into Scans."""
    for path, layer in list(model.named_modules()):
        if isinstance(layer, nn.RNNBase):
            if not path:
                return replace_layer(layer, {})
            parent, _, child = path.rpartition(".")
            setattr(model.get_submodule(parent), child, replace_layer(layer, {}))
    return model
