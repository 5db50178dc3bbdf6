"""The samples exported whole by their tasks: their metrics in ONNX Runtime are torch's."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import ttcompress
from ttcompress.artifact import CompressedModel
from ttcompress.tasks.evaluation import measure_metrics, measure_module
from ttcompress.tasks.protocol import Task
from ttcompress.tasks.registry import task_for

pytest.importorskip("onnxruntime")

from ttcompress.targets.onnx.sessions import start_session

ROOT = Path(__file__).parents[2]
STATES = {"charlm": ("h0", "c0"), "highlighter": (), "forecaster": ()}
"""Those that a task carries from batch to batch, of each sample."""

Written = Callable[[str, str], ttcompress.Exported]
Fast = Callable[[str], tuple[CompressedModel, Task, dict[str, float]]]


class InRuntime(nn.Module):
    """An exported model that a task can call as its own."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(()))  # a task asks its model's first for the device
        self.session = start_session(path.read_bytes())
        self.states = self.session.get_inputs()[1:]

    def forward(self, inputs: Tensor, state: Any, lengths: None) -> tuple[Tensor, Any]:
        if state is None:
            sizes = [(entry.shape[0], len(inputs), entry.shape[2]) for entry in self.states]
            state = (tuple(torch.zeros(size) for size in sizes),)
        feed = {"input": inputs.numpy()}
        feed |= {e.name: x.numpy() for e, x in zip(self.states, state[0], strict=True)}
        logits, *after = map(torch.from_numpy, self.session.run(None, feed))
        return logits, (tuple(after),)


@pytest.fixture(scope="module")
def fast() -> Fast:
    """A sample under the recipe `fast`, its task, and its metrics in torch."""

    @cache
    def make(sample: str) -> tuple[CompressedModel, Task, dict[str, float]]:
        model = ttcompress.compress(ROOT / "sample_models" / f"{sample}.pt", "fast")
        task = task_for(model, sample)
        return model, task, measure_metrics(task, model)

    return make


@pytest.fixture(scope="module")
def exported(fast: Fast, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """A sample under `fast` as ONNX for every runtime, in float or int8."""
    folder = tmp_path_factory.mktemp("samples")

    @cache
    def make(sample: str, quantize: str) -> ttcompress.Exported:
        model, task, _ = fast(sample)
        path = folder / f"{sample}.{quantize}.onnx"
        # In int8 an operator would be ONNX Runtime's own.
        layers = "auto" if quantize == "none" else "scan"
        (made,) = ttcompress.export(model, path, task=task, quantize=quantize, layers=layers)
        return made

    return make


@pytest.mark.slow
@pytest.mark.parametrize("quantize", ["none", "int8"])
@pytest.mark.parametrize("sample", ["charlm", "highlighter"])
def test_a_sample_is_the_same_in_openvino(sample, quantize, exported: Written) -> None:
    openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed")
    path = exported(sample, quantize).file
    session = start_session(path.read_bytes())
    # On processors with bfloat16 its default is less than float32.
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(path, "CPU", settings)
    generator = torch.Generator().manual_seed(0)
    for steps, batch in product((1, 7, 20), (1, 4)):
        feed = {"input": torch.randint(90, (batch, steps), generator=generator).numpy()}
        for entry in session.get_inputs()[1:]:
            sizes = entry.shape[0], batch, entry.shape[2]
            feed[entry.name] = torch.randn(sizes, generator=generator).numpy()
        for one, other in zip(compiled(feed).to_tuple(), session.run(None, feed), strict=True):
            # In int8 a value on the edge between two integers may be rounded the other way, and
            # all steps after it differ a little.
            allowed = 1e-5 if quantize == "none" else 0.03
            assert np.linalg.norm(one - other) <= allowed * np.linalg.norm(other)


@pytest.mark.slow
@pytest.mark.parametrize("sample", STATES)
def test_a_sample_is_the_same_in_float(sample, fast: Fast, exported: Written) -> None:
    _, task, wanted = fast(sample)
    made = exported(sample, "none")
    assert made.inputs == ("input", *STATES[sample])
    assert made.largest_difference < 1e-4
    session = InRuntime(made.file).session
    assert made.outputs == tuple(entry.name for entry in session.get_outputs())
    assert measure_module(task, InRuntime(made.file)) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("sample", STATES)
def test_a_samples_metric_stays_within_half_a_percent_in_int8(
    sample, fast: Fast, exported: Written
) -> None:
    _, task, wanted = fast(sample)
    made = exported(sample, "int8")
    assert made.holds["int8"] > 10 * made.holds["float"]
    found = measure_module(task, InRuntime(made.file))
    counting = task.metrics[0].name
    assert found != wanted  # the products were rounded
    assert found[counting] == pytest.approx(wanted[counting], rel=0.005)
