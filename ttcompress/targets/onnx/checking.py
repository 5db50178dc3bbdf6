"""An exported model and its module enter; how far their outputs differ leaves. Needs the extra."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

from ttcompress.errors import TTCompressError
from ttcompress.targets.onnx.calls import BATCH, TIME, Call, Flat

STEPS, BATCHES = (1, 7, 20), (1, 4)
"""None of them is what the export saw."""

FLOAT_LIMIT = 1e-4
"""The largest difference of any value, of outputs near 1: what float32 leaves of another order."""

INT8_LIMIT = 0.2
"""The norm of the difference over that of the output: rounding costs some hundredths, and an
output that is wrong has about 1."""


@dataclass(frozen=True)
class Difference:
    """The worst over all sizes: of one value, and of the norm, relative to the output's."""

    value: float
    norm: float


def start_session(model: bytes, threads: int = 1) -> onnxruntime.InferenceSession:
    """The model in ONNX Runtime on the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def check(model: bytes, module: nn.Module, call: Call, *, int8: bool, seed: int = 0) -> Difference:
    """Run the ONNX checker, and hold the outputs on random inputs against torch's.

    Raises:
        TTCompressError: the model is not valid, or its outputs are not the module's.
    """
    flat, worst = Flat(module, call).eval(), Difference(0.0, 0.0)
    try:
        onnx.checker.check_model(model, full_check=True)
        session = start_session(model)
        for steps, batch in product(STEPS, BATCHES):
            inputs = call.random_inputs({TIME: steps, BATCH: batch}, seed)
            with torch.no_grad():
                wanted = [output.numpy() for output in flat(*inputs)]
            feed = {name: x.numpy() for name, x in zip(call.inputs, inputs, strict=True)}
            found = _difference(session.run(None, feed), wanted)
            worst = Difference(max(worst.value, found.value), max(worst.norm, found.norm))
    except Exception as error:  # the runtime's classes have no base in common
        raise TTCompressError(
            f"the exported model does not run: {error}. "
            "Lengths and batches must stay free in the module's forward."
        ) from error
    _judge(worst, int8)
    return worst


def _difference(found: list[np.ndarray], wanted: list[np.ndarray]) -> Difference:
    """Values are taken relative to the output's largest, unless that is below 1."""
    values, norms = [0.0], [0.0]
    for one, other in zip(found, wanted, strict=True):
        if one.shape != other.shape or not np.isfinite(one).all():
            return Difference(np.inf, np.inf)
        gap = np.abs(one.astype(np.float64) - other)
        size = max(float(np.linalg.norm(other)), float(np.finfo(np.float32).tiny))
        values.append(float(gap.max(initial=0)) / max(1.0, float(np.abs(other).max(initial=0))))
        norms.append(float(np.linalg.norm(gap)) / size)
    return Difference(max(values), max(norms))


def _judge(found: Difference, int8: bool) -> None:
    value, limit = (found.norm, INT8_LIMIT) if int8 else (found.value, FLOAT_LIMIT)
    if value > limit:
        cure = "Export it without --quantize." if int8 else "This is a defect: report it."
        raise TTCompressError(
            f"the exported model's outputs differ from torch's by {value:.2g}, and {limit:g} is "
            f"the limit; no file was kept. {cure}"
        )
