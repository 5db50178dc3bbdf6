"""The shipped recipes that fine-tune, for a few steps on a real model."""

from dataclasses import replace
from pathlib import Path

import pytest

from ttcompress.recipe import TaskChoice, find_recipe, load_recipe
from ttcompress.workflows.compress import compress

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
    done, metrics = tuned.report.finetune, tuned.report.metrics
    assert done is not None and metrics is not None
    # The start is the first candidate, and would have been kept. It is not what the recipe makes
    # without fine-tuning, which plans for other ranks and steps.
    assert done["steps"] == done["best_step"] == STEPS
    found = metrics["bits_per_character"]
    assert found["before"] < found["after"]
    factor = tuned.report.totals["weights"].compression_factor
    assert factor >= recipe.budget.factor
