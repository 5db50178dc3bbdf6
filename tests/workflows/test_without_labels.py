"""Compression and training without labels: text that the model writes, recorded inputs, loaders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import ttcompress
from ttcompress.checkpoint import open_checkpoint

SMALL = {"version": 1, "format": "mps", "budget": {"factor": 16}, "store": "int4"}
SHORT = {"max_steps": 60, "epochs": 1, "learning_rate": 1e-2}


def metric(case, model: ttcompress.CompressedModel) -> float:
    return ttcompress.evaluate(model, case.task)["bits_per_character"]


def test_synthetic_text_calibrates(case) -> None:
    blind = ttcompress.compress(case.path, SMALL)
    aware = ttcompress.compress(case.path, {**SMALL, "calibration": {"synthetic": 16}})
    assert aware.report.calibration is not None
    assert metric(case, aware) < metric(case, blind)


def test_a_tolerance_needs_no_text_and_the_report_says_so(case) -> None:
    recipe = {"version": 1, "budget": {"tolerance": 0.3}, "calibration": {"synthetic": 8}}
    notes = ttcompress.compress(case.path, recipe).report.notes
    assert any("a tolerance bounds the error of the weights themselves" in note for note in notes)


def test_a_model_that_cannot_write_is_compressed_and_the_report_says_so(tmp_path: Path) -> None:
    lstm = nn.LSTM(16, 32)
    made = ttcompress.compress(lstm, {**SMALL, "calibration": {"synthetic": 16}})
    assert made.report.calibration is None
    assert "cannot write its own inputs" in " ".join(made.report.notes)


def test_training_on_its_own_text_helps(case) -> None:
    start = ttcompress.compress(case.path, SMALL)
    tuned = ttcompress.compress(case.path, {**SMALL, "finetune": SHORT})
    assert metric(case, tuned) < metric(case, start) - 0.1
    assert tuned.report.finetune is not None
    assert tuned.report.finetune["task"] == "synthetic"
    assert tuned.report.finetune["settings"]["distill"] == 1.0
    assert tuned.report.metrics is not None
    assert list(tuned.report.metrics) == ["divergence", "agreement"]
    assert tuned.report.metrics["agreement"]["before"] == 1.0


def test_training_on_recorded_inputs_helps(case, tmp_path: Path) -> None:
    table = case.checkpoint.tensor("embedding.weight")
    batches = list(case.task.train_batches(0, 0))
    inputs = table[torch.cat([b.inputs[:, :20] for b in batches if b.inputs.shape[1] >= 20])]
    save_file({"lstm": inputs}, tmp_path / "x.safetensors")
    recipe: dict[str, Any] = {**SMALL, "finetune": SHORT}
    start = ttcompress.compress(case.path, SMALL, data=tmp_path / "x.safetensors")
    tuned = ttcompress.compress(case.path, recipe, data=tmp_path / "x.safetensors")
    assert tuned.report.finetune is not None and tuned.report.finetune["task"] == "recorded"
    assert metric(case, tuned) < metric(case, start)
    kept = open_checkpoint(case.path)
    assert torch.equal(tuned.tensor("embedding.weight"), kept.tensor("embedding.weight"))


def test_recorded_inputs_of_a_layer_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    lstm = nn.LSTM(8, 32, batch_first=True)
    ttcompress.record(lstm, [torch.randn(64, 12, 8) for _ in range(6)], tmp_path / "x.safetensors")
    longer = {"max_steps": 300, "epochs": 20, "learning_rate": 3e-3}
    recipe: dict[str, Any] = {**SMALL, "finetune": longer}
    tuned = ttcompress.compress(lstm, recipe, data=tmp_path / "x.safetensors")
    metrics = tuned.report.metrics
    assert metrics is not None and list(metrics) == ["output_error", "state_error"]
    start = ttcompress.compress(lstm, SMALL, data=tmp_path / "x.safetensors")
    x = torch.randn(64, 12, 8)
    with torch.no_grad():
        wanted = lstm(x)[0]
        gaps = [float((m.module()(x)[0] - wanted).norm()) for m in (start, tuned)]
    assert gaps[1] < gaps[0]


def test_unlabelled_batches_and_the_module(tmp_path: Path) -> None:
    class Forecaster(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.LSTM(3, 32, batch_first=True), nn.Linear(32, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.head(self.rnn(x)[0][:, -1])
            return out

    torch.manual_seed(0)
    model = Forecaster()
    batches = [torch.randn(16, 10, 3) for _ in range(20)]
    task = ttcompress.task_of(model, train=batches, valid=batches[:3], predicts="values")
    recipe: dict[str, Any] = {**SMALL, "finetune": {**SHORT, "epochs": 3}}
    tuned = ttcompress.compress(model, recipe, task=task)
    start = ttcompress.compress(model, SMALL, task=task)
    errors = [m.report.metrics["output_error"]["after"] for m in (start, tuned) if m.report.metrics]
    assert errors[1] < 0.8 * errors[0]


@pytest.mark.parametrize(
    ("finetune", "message"),
    [
        ({}, "nothing to train on: no task, no recorded inputs"),
        ({"data": "synthetic"}, "not part of a larger model"),
        ({"data": "recorded"}, "there are no recorded inputs"),
        ({"data": "task"}, "there is no task"),
    ],
)
def test_nothing_to_train_on(finetune: dict[str, Any], message: str) -> None:
    with pytest.raises(ttcompress.RecipeError, match=message):
        ttcompress.compress(nn.LSTM(8, 16), {**SMALL, "finetune": finetune})
