"""The sample models by their tasks: the figures they were made with come back."""

import json
import platform
from pathlib import Path

import pytest

from ttcompress.workflows.evaluate import evaluate

SAMPLES = Path(__file__).parents[2] / "sample_models"
BASELINES = json.loads((SAMPLES / "baselines.json").read_text())

ANOTHER_PYTHON = 0.05  # carries another text


@pytest.mark.slow
@pytest.mark.parametrize("name", BASELINES)
def test_a_sample_reaches_its_baseline(name):
    baseline = BASELINES[name]
    same = baseline["python"] == platform.python_version()
    for metric, value in evaluate(SAMPLES / f"{name}.pt", name).items():
        expected = baseline["metrics"][metric]
        assert value == pytest.approx(expected, rel=1e-4 if same else ANOTHER_PYTHON)
