"""Converts a module to an ONNX model, tidy and with readable names.

torch's exporter makes the graph: one Scan for each recurrent layer and direction. This module
decides which constants are folded: never trains or few-bit numbers, which the file must hold.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx_ir
import torch
from onnx import ModelProto, TensorProto, numpy_helper
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from onnxscript.optimizer import optimize_ir
from torch import nn

from ttcompress.errors import TTCompressError
from ttcompress.targets.calls import Call, FlatModule
from ttcompress.targets.onnx.portable import (
    NATIVE_OPSET,
    NIBBLE_OPSET,
    close_bodies,
    lower_opset,
    lowest_ir,
    split_gemms,
)
from ttcompress.targets.onnx.views import CODES

_STORED = (".cores.", ".views.", ".parametrizations.")
_ANY_SIZE = 1 << 40

_TALKATIVE = ("torch.onnx", "torch.export", "torch._guards", "torch._dynamo", "torch.fx")
"""Loggers that report at length what the exception says too."""


def convert(module: nn.Module, call: Call, *, fold: bool, opset: int = NATIVE_OPSET) -> ModelProto:
    """Convert a module to an ONNX model with the free axes of its call.

    Args:
        module: in evaluation mode; its recurrent layers are those of `ttcompress.layers`.
        call: how it is called.
        fold: turn stored numbers into float32 matrices, so that these can be quantised.
        opset: the version of ONNX's operators, one of `OPSETS`.

    Raises:
        TTCompressError: the module cannot be exported.
    """
    names = dict.fromkeys(name for axes in call.axes for name in axes.values())
    dims = {name: torch.export.Dim(name, min=1) for name in names}
    free = (tuple({k: dims[name] for k, name in axes.items()} for axes in call.axes),)
    example = tuple(
        tensor.clone() for tensor in call.tensors
    )  # the same tensor twice would be an alias
    torch.compiler.reset()  # traces of other shapes would make sizes constant
    try:
        with _quiet(), torch.no_grad():
            # Strict: otherwise a second GRU scan in the module makes the batch constant.
            traced = torch.export.export(
                FlatModule(module, call).eval(), example, dynamic_shapes=free, strict=True
            )
            program = torch.onnx.export(
                traced,
                dynamo=True,
                optimize=False,
                verbose=False,
                opset_version=max(opset, NATIVE_OPSET),
                input_names=list(call.inputs),
                output_names=list(call.outputs),
                dynamic_shapes=free,
            )
    except Exception as error:  # torch's tracer raises exceptions of any kind
        raise TTCompressError(f"torch cannot export this module: {_explain(error)}") from error
    assert program is not None  # never None with dynamo
    model = _tidied(program.model, fold)
    split_gemms(model.graph)
    close_bodies(model.graph)
    if opset < NATIVE_OPSET:
        model = lower_opset(model, opset)
    if opset >= NIBBLE_OPSET:
        for codes in nibbles(model):
            codes.data_type, codes.raw_data = TensorProto.UINT4, _packed(codes)
    model.ir_version = lowest_ir(model)
    return model


_CURES = (
    (
        re.compile(r"pack_padded_sequence|pack_sequence|packed sequence"),
        "packed sequences cannot be traced, as their sizes follow from the values of lengths. Give "
        "the layer the padded tensor, and use the lengths after it: `y.gather(1, (lengths - "
        "1).view(-1, 1, 1).expand(-1, 1, y.shape[2]))` is the last step, `y * "
        "(torch.arange(y.shape[1]) < lengths[:, None])[..., None]` has zeros behind it. Before a "
        "reverse direction, flip each sequence within its length",
    ),
    (
        re.compile(
            r"marked (\w+) as dynamic but your code specialized it to be a constant \((\d+)\)"
        ),
        "its forward makes the axis {0} constant, {1} as in the example: by a loop over it in "
        "Python, as around an LSTMCell, or by a number taken from it. Export one step, with the "
        "state among the arguments and outputs and the loop outside, or use nn.LSTM",
    ),
    (
        re.compile(r"(\w+) = Dim\('\w+', min=(\d+)"),
        "its forward needs a size of at least {1} on the axis {0}, but a free axis must take any "
        "from 1. Pad inside forward, or leave this axis out of `axes`",
    ),
    (
        re.compile(r"No ONNX function found for <OpOverload\(op='([\w.]+)'"),
        "ONNX has no operation for {0}. Compute it outside of forward",
    ),
)
"""What torch's reports say of frequent causes, and what to tell the user."""

_USERS_LINE = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)')


def _explain(error: Exception) -> str:
    """The cause in torch's report, in a sentence, with the user's line where it names one."""
    chain = [error]
    while isinstance(cause := chain[-1].__cause__, Exception):
        chain.append(cause)
    report = "\n".join(map(str, chain))
    inside = (str(Path(torch.__file__).parent), str(Path(__file__).parents[2]))
    lines = [m for m in _USERS_LINE.finditer(report) if not m["file"].startswith(inside)]
    where = f" ({lines[-1]['file']}, line {lines[-1]['line']})" if lines else ""
    for pattern, cure in _CURES:
        if found := pattern.search(report):
            return f"{cure.format(*found.groups())}{where}."
    explained = re.search(r"Explanation: (.+)", report)
    reason = explained[1] if explained else str(error.__cause__ or error).strip().splitlines()[0]
    return (
        f"{reason.rstrip('.')}{where}. Its forward must not branch on the values of tensors, and "
        "may use lengths only in operations on tensors."
    )


def _tidied(model: onnx_ir.Model, fold: bool) -> ModelProto:
    """Remove dead nodes, and the exporter's notes, which hold paths of this machine."""
    optimize_ir(
        model,
        output_size_limit=_ANY_SIZE if fold else 0,
        should_fold=lambda node: True if fold else not _reads_stored(node),
    )
    ClearMetadataAndDocStringPass()(model)
    for value in tuple(model.graph.initializers.values()):
        value.name = (value.name or "").removeprefix("module.")
    proto: ModelProto = onnx_ir.to_proto(model)
    for entry in [*proto.graph.input, *proto.graph.output]:
        entry.ClearField("metadata_props")
    del proto.graph.value_info[:]
    return proto


def _reads_stored(node: onnx_ir.Node) -> bool:
    return any(mark in (v.name or "") for v in node.inputs if v is not None for mark in _STORED)


def nibbles(model: ModelProto) -> list[TensorProto]:
    """The stored codes that take 8 bits each, but are below 16."""
    stored = [one for one in model.graph.initializer if one.name.endswith(f".{CODES}")]
    return [
        one
        for one in stored
        if one.data_type == TensorProto.UINT8 and numpy_helper.to_array(one).max(initial=0) < 16
    ]


def _packed(tensor: TensorProto) -> bytes:
    """Codes below 16, two to a byte."""
    codes = numpy_helper.to_array(tensor).reshape(-1)
    even = np.append(codes, np.zeros(codes.size % 2, np.uint8))
    packed: bytes = (even[::2] | even[1::2] << 4).astype(np.uint8).tobytes()
    return packed


def describe(model: ModelProto, facts: Mapping[str, str]) -> None:
    """Note in the file where it comes from."""
    model.producer_name = "ttcompress"
    model.producer_version = facts["ttcompress"]
    del model.metadata_props[:]
    for key, value in facts.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the logs and warnings of torch's exporter; errors are still raised."""
    loggers = {name: logging.getLogger(name) for name in _TALKATIVE}
    before = {name: logger.level for name, logger in loggers.items()}
    try:
        for logger in loggers.values():
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, logger in loggers.items():
            logger.setLevel(before[name])
