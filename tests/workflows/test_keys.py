"""The key of a job: whatever its result depends on changes it, and nothing else does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ttcompress.recipe import recipe_from, with_options
from ttcompress.workflows import keys
from ttcompress.workflows.batch_job import BatchJob, queue_jobs

TASK = {"name": "tasks/own.py:Own", "text": "data/text.txt", "labels": ["folder", "no file"]}
RECIPE = {"version": 1, "budget": {"factor": 2}, "calibration": {"data": "inputs.st"}, "task": TASK}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name in ("model.pt", "inputs.st", "tasks/own.py", "tasks/helper.py", "data/text.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("as it was")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "part.txt").write_text("as it was")
    return tmp_path


@pytest.fixture
def job(files: Path) -> BatchJob:
    recipe = recipe_from(RECIPE)
    return BatchJob(files / "model.pt", recipe, files / "out", files, "model", "recipe")


def key(job: BatchJob) -> str:
    return queue_jobs([job])[0].key


@pytest.mark.parametrize(
    "changed",
    [
        "model.pt",
        "inputs.st",
        "tasks/own.py",
        "tasks/helper.py",
        "data/text.txt",
        "folder/part.txt",
    ],
)
def test_a_file_that_changes_changes_the_key(changed: str, job: BatchJob, files: Path) -> None:
    before = key(job)
    assert key(job) == before
    (files / changed).write_text("otherwise")
    assert key(job) != before
    (files / changed).write_text("as it was")
    assert key(job) == before


@pytest.mark.parametrize("changed", ["data/other.txt", "tasks/notes.md", "out"])
def test_other_files_do_not_change_it(changed: str, job: BatchJob, files: Path) -> None:
    before = key(job)
    (files / changed).write_text("new")
    assert key(job) == before


def test_the_recipe_changes_it_as_written_and_as_in_force(job: BatchJob) -> None:
    recipes = [
        job.recipe,
        replace(job.recipe, text="# a comment, which the artifact holds too"),
        with_options(job.recipe, max_size=9),
        with_options(job.recipe, seed=1),
    ]
    assert len({key(replace(job, recipe=recipe)) for recipe in recipes}) == len(recipes)


@pytest.mark.parametrize("package", ["ttcompress", "torch", "python"])
def test_another_version_changes_it(package: str, job: BatchJob, monkeypatch) -> None:
    before = key(job)
    if package == "python":
        monkeypatch.setattr(keys.platform, "python_version", lambda: "4.0")
    else:
        real = keys.version
        monkeypatch.setattr(keys, "version", lambda n: "0" if n == package else real(n))
    assert key(job) != before


def test_the_precision_counts_where_something_is_trained(job: BatchJob) -> None:
    trained = replace(job, recipe=with_options(job.recipe, finetune=True))
    for one, count in ((job, 1), (trained, 2)):
        assert len({queue_jobs([one], precision)[0].key for precision in ("no", "bf16")}) == count


def test_names_and_places_do_not_change_it(job: BatchJob, files: Path) -> None:
    moved = replace(job, output=files / "elsewhere", model_name="m", recipe_name="r")
    assert key(moved) == key(job)


def test_the_shards_of_a_model_count(job: BatchJob, files: Path) -> None:
    index = files / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "one.st", "b": "two.st"}}))
    for name in ("one.st", "two.st"):
        (files / name).write_text("as it was")
    sharded = replace(job, model=index)
    before = key(sharded)
    (files / "two.st").write_text("otherwise")
    assert key(sharded) != before


def test_what_cannot_be_read_is_left_to_the_job_itself(job: BatchJob, files: Path) -> None:
    (files / "no.json").write_text("[")
    for name in ("absent.pt", "no.json"):
        assert key(replace(job, model=files / name))
    long = with_options(job.recipe, task="x" * 5000 + ".py:T")
    assert key(replace(job, recipe=long))
