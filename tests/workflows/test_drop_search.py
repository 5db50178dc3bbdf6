"""The smallest model within a drop: found, resumed, refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ttcompress.errors import PlanError, RecipeError
from ttcompress.recipe import recipe_from
from ttcompress.tasks.evaluation import measure_metrics
from ttcompress.workflows import drop_search as search
from ttcompress.workflows.compress import compress
from ttcompress.workflows.plan import plan


def recipe(case, **keys):
    options = {"name": "language-model", "text": str(case.path.parent / "text.txt")}
    task = options | {"batch": 8, "steps": 20}
    return {"version": 1, "format": "mps", "budget": {"drop": "5%"}, "task": task} | keys


def relative_drop(model) -> float:
    counting = next(iter(model.report.metrics.values()))
    return counting["drop"] / counting["before"]


def test_the_model_found_is_within_the_drop_and_a_little_smaller_one_is_not(case) -> None:
    made = compress(case.path, recipe(case))
    factor = made.report.totals["weights"].compression_factor
    assert relative_drop(made) <= 0.05
    smaller = compress(case.path, recipe(case, budget={"factor": 1.06 * factor}))
    assert relative_drop(smaller) > 0.05
    assert made.report.recipe["effective"]["budget"] == {"drop": "5%"}
    assert any("found in" in note and "trials" in note for note in made.report.notes)


def test_an_interrupted_search_goes_on_and_measures_nothing_twice(case, tmp_path, monkeypatch):
    path, count = tmp_path / "out.trials.json", 0

    def counted(task, model):
        nonlocal count
        count += 1
        if count == 5:
            raise KeyboardInterrupt
        return measure_metrics(task, model)

    monkeypatch.setattr(search, "measure_metrics", counted)
    with pytest.raises(KeyboardInterrupt):
        compress(case.path, recipe(case), trials=path)
    kept = json.loads(path.read_text(encoding="utf-8"))["trials"]
    assert len(kept) == 4
    resumed = compress(case.path, recipe(case), trials=path)
    assert not path.exists()
    first = count
    again = compress(case.path, recipe(case), trials=path)
    assert count - first == first - 5 + 4  # the second search measured what the first two did
    assert again.report.as_json() == resumed.report.as_json()


def interrupted(case, asked, path) -> str:
    """A search that ends before its third measurement; the file that keeps the first two."""

    def interrupt(stage: str, done: int, *_: object) -> None:
        if stage == "search" and done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compress(case.path, asked, trials=path, progress=interrupt)
    return path.read_text(encoding="utf-8")


def test_trials_on_other_data_are_not_used(case, tmp_path) -> None:
    text, path = tmp_path / "valid.txt", tmp_path / "out.trials.json"
    text.write_text((case.path.parent / "text.txt").read_text(encoding="utf-8"), encoding="utf-8")
    asked = recipe(case)
    asked["task"]["text"] = str(text)
    first = interrupted(case, asked, path)
    assert interrupted(case, asked, path) == first
    text.write_text("the wind sails to the lake and sings. " * 100, encoding="utf-8")
    assert json.loads(interrupted(case, asked, path)) != json.loads(first)


@pytest.mark.parametrize("trials", [None, [1.0], "1", {"before": "a word"}, {"before": [1.0]}])
def test_a_damaged_file_of_trials_is_not_used(trials, case, tmp_path) -> None:
    path = tmp_path / "out.trials.json"
    first = interrupted(case, recipe(case), path)
    damaged = json.loads(first) | {"trials": trials}
    path.write_text(json.dumps(damaged), encoding="utf-8")
    assert interrupted(case, recipe(case), path) == first


def test_trials_of_another_recipe_are_not_used(case, tmp_path) -> None:
    path = tmp_path / "out.trials.json"
    nonsense = {"key": "of another", "trials": {"before": 1.0, "1.25": 99.0}}
    path.write_text(json.dumps(nonsense), encoding="utf-8")
    assert relative_drop(compress(case.path, recipe(case), trials=path)) <= 0.05


def test_other_budgets_hold_in_every_trial(case) -> None:
    made = compress(case.path, recipe(case, budget={"drop": "9999%", "rank": 3}))
    assert max(rank for w in made.report.weights for rank in w.ranks) <= 3


def test_a_drop_out_of_reach_says_what_was_found_and_the_cure(case) -> None:
    budget = {"drop": "0.1%", "factor": 40}
    with pytest.raises(
        PlanError, match=r"0\.1% is out of reach: factor 40, .* a drop of .* %.*--finetune"
    ):
        compress(case.path, recipe(case, budget=budget))


def test_where_the_factor_is_out_of_reach_the_drop_is_not_blamed(case, tmp_path) -> None:
    budget, trials = {"drop": "5%", "factor": 100_000}, tmp_path / "trials.json"
    for _ in range(2):  # the second time it is known
        with pytest.raises(PlanError, match=r"^factor 100000 is out of reach: even with the small"):
            compress(case.path, recipe(case, budget=budget), trials=trials)


def test_without_a_task_it_is_refused(case) -> None:
    asked = {"version": 1, "budget": {"drop": "1%"}}
    with pytest.raises(RecipeError, match="Add --task"):
        compress(case.path, asked)


def test_a_plan_cannot_know_it(case) -> None:
    with pytest.raises(PlanError, match=r"budget\.drop: whether .* is kept shows only when"):
        plan(case.path, recipe(case))


def test_a_drop_may_be_absolute(case) -> None:
    made = compress(case.path, recipe(case, budget={"drop": 0.02}))
    assert next(iter(made.report.metrics.values()))["drop"] <= 0.02


def test_of_a_metric_that_was_zero_no_part_may_be_lost(case, monkeypatch) -> None:
    """A fraction of 0 is 0: the metric's own unit does not stand in for it."""
    monkeypatch.setattr(
        search, "measure_metrics", lambda task, model: {"bits_per_character": next(values)}
    )
    values = iter([0.0, 0.04])
    with pytest.raises(
        PlanError,
        match=r"5% is out of reach: factor 1\.25, .* a drop of 0\.04\. Allow a larger "
        "drop in the unit of bits_per_character, since it is 0 before",
    ):
        compress(case.path, recipe(case))


def test_the_drop_is_a_key_of_the_budget() -> None:
    found = recipe_from({"version": 1, "budget": {"drop": "1%"}}).budget.drop
    assert found is not None and found.relative and found.amount == pytest.approx(0.01)


def test_the_command_line_writes_the_smallest_file(case, tmp_path: Path, monkeypatch) -> None:
    from typer.testing import CliRunner

    from ttcompress.cli import app

    monkeypatch.chdir(tmp_path)
    text = case.path.parent / "text.txt"
    Path("r.yaml").write_text(
        f"version: 1\nbudget: {{factor: 2}}\n"
        f"task: {{name: language-model, text: {text}, batch: 8, steps: 20}}\n",
        encoding="utf-8",
    )
    given = ["decompose", str(case.path), "-r", "r.yaml", "--drop", "5%", "-o", "a.safetensors"]
    found = CliRunner().invoke(app, given)
    assert found.exit_code == 0, found.output
    assert re.search(r"^drop: \S.* \(budget: 5%\)", found.stdout, re.MULTILINE)
    assert not Path("a.safetensors.trials.json").exists()
