"""The shipped recipes that fine-tune, for a few steps on a real model."""

from dataclasses import replace
from pathlib import Path

import pytest

from ttcompress.checkpoint import open_checkpoint
from ttcompress.recipe import TaskChoice, find_recipe, load_recipe
from ttcompress.tasks.evaluation import measure_metrics
from ttcompress.tasks.registry import task_for
from ttcompress.workflows.compress import build, compress
from ttcompress.workflows.job import prepare

CHARLM = Path(__file__).parents[2] / "sample_models" / "charlm.pt"
STEPS = 24


@pytest.mark.slow
@pytest.mark.parametrize("name", ["small-finetuned", "tiny-finetuned"])
def test_a_few_steps_already_win_something_back(name: str) -> None:
    recipe = load_recipe(find_recipe(name))
    assert recipe.finetune is not None
    # So few steps need small ones: the recipe's own rate is for thousands.
    short = replace(recipe.finetune, max_steps=STEPS, learning_rate=2e-4)
    recipe = replace(recipe, finetune=short, task=TaskChoice(name="charlm"))
    tuned = compress(CHARLM, recipe)
    checkpoint = open_checkpoint(CHARLM)
    start = measure_metrics(
        task_for(checkpoint, "charlm"), build(prepare(checkpoint, replace(recipe, finetune=None)))
    )
    assert tuned.report.finetune is not None and tuned.report.finetune["steps"] == STEPS
    assert tuned.report.metrics is not None
    found = tuned.report.metrics["bits_per_character"]
    assert found["before"] < found["after"] < start["bits_per_character"]
    factor = tuned.report.totals["weights"].compression_factor
    assert factor >= recipe.budget.factor
