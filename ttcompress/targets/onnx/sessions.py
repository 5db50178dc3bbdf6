"""Runs ONNX models in ONNX Runtime, on the CPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx
import onnxruntime

from ttcompress.targets.target import Arrays


def start_session(model: bytes, threads: int = 1) -> onnxruntime.InferenceSession:
    """Load a model into ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def check_and_run(model: bytes, inputs: Sequence[str], cases: Sequence[Arrays]) -> Iterator[Arrays]:
    """Run ONNX's checker, then the model on each case; `inputs` name the arrays of a case."""
    onnx.checker.check_model(model, full_check=True)
    session = start_session(model)
    for case in cases:
        yield session.run(None, dict(zip(inputs, case, strict=True)))
