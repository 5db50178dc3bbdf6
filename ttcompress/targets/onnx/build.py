"""Builds the ONNX file of a part: `build` is the entry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from copy import deepcopy
from itertools import groupby
from math import prod

from onnx import ModelProto, TensorProto

from ttcompress.targets.onnx.convert import convert, describe, nibbles
from ttcompress.targets.onnx.portable import NATIVE_OPSET, NIBBLE_OPSET
from ttcompress.targets.onnx.quantize import quantize_model
from ttcompress.targets.onnx.views import holds_nibbles, see_stored
from ttcompress.targets.onnx.ways import with_ways
from ttcompress.targets.target import Part, Written


def build(
    part: Part, facts: Mapping[str, str], *, int8: bool, opset: int | None, layers: str
) -> Written:
    """Build one file in memory, with `facts` and its content noted in it.

    Args:
        part: the model or layer.
        facts: where it comes from; `ttcompress` among them is the version.
        int8: run products in int8, with weights rounded again; otherwise the file has the stored
            numbers, whose values a runtime computes once, when it loads the file.
        opset: the version of ONNX's operators; None for the lowest that costs no bytes.
        layers: how recurrent layers run, see `with_ways`.

    Raises:
        TTCompressError: torch cannot export the module, or the opset lacks an operator.
    """
    module, ways = with_ways(deepcopy(part.module), layers, int8=int8)
    if not int8:
        for names, stored in part.weights:
            see_stored(module, names, stored)
    if opset is None:
        opset = NIBBLE_OPSET if holds_nibbles(module) else NATIVE_OPSET
    model = convert(module.eval(), part.call, fold=int8, opset=opset)
    if int8:
        model = quantize_model(model)
    counts = Counter[str]()
    for tensor in model.graph.initializer:
        counts[TensorProto.DataType.Name(tensor.data_type).lower()] += prod(tensor.dims)
    holds = dict(counts.most_common())
    listed = ", ".join(f"{count} in {type}" for type, count in holds.items())
    describe(model, {**facts, "holds": listed})
    content = model.SerializeToString(deterministic=True)
    return Written({"": content}, holds, notes=(*_ways(ways), *_opset(model, opset)))


def _ways(ways: Mapping[tuple[str, int], str]) -> Iterator[str]:
    """How each layer runs, those alike together."""
    for (path, way), keys in groupby(ways, lambda key: (key[0], ways[key])):
        numbers = [str(k) for _, k in keys]
        layers = f"layer{'s' * (len(numbers) > 1)} {', '.join(numbers)}"
        yield f"{path} {layers}: {way}".strip()


def _opset(model: ModelProto, opset: int) -> Iterator[str]:
    """The versions, and what an old one costs."""
    cost = sum(prod(codes.dims) // 2 for codes in nibbles(model)) if opset < NIBBLE_OPSET else 0
    more = f"; codes of 4 bits take 8, {cost:,} bytes more than from opset {NIBBLE_OPSET} on"
    yield f"opset {opset}, IR {model.ir_version}{more if cost else ''}"
