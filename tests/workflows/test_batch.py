"""Batches as they run: in worker processes that fail, are killed and are interrupted."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from joblib import cpu_count

import ttcompress
from ttcompress.errors import OutputError
from ttcompress.jobs.engine import Engine
from ttcompress.jobs.job import Result
from ttcompress.jobs.records import FOLDER, beside, find_record, record
from ttcompress.results.batch import BatchResult
from ttcompress.results.outcome import Outcome
from ttcompress.workflows.batch import batch
from ttcompress.workflows.batch_job import Compression, outcome_of, queue_jobs

TWO = Engine(jobs=2)
"""Every batch here has two jobs or more to run, so that joblib keeps its pool of workers."""

Batch = Callable[..., BatchResult]


@pytest.fixture
def run(folder: Path, jobs) -> Batch:
    def invoke(text: str | None = None, **options) -> BatchResult:
        if text is not None:
            (folder / "manifest.yaml").write_text(text)
        return batch(folder / "manifest.yaml", **{"engine": TWO} | options)

    return invoke


def statuses(result: BatchResult) -> list[str]:
    return [outcome.status for outcome in result.outcomes]


def was_cached(result: BatchResult) -> list[bool]:
    return [outcome.cached for outcome in result.outcomes]


def test_a_batch_runs_then_comes_from_the_cache_then_runs_what_changed(
    run, folder, monkeypatch
) -> None:
    told = []
    first = run(on_outcome=lambda outcome: told.append(outcome.name))
    assert statuses(first) == ["done"] * 4
    assert was_cached(first) == [False] * 4
    assert sorted(told) == sorted(outcome.name for outcome in first.outcomes)
    model = ttcompress.compress(folder / "models" / "b.pt", folder / "half.yaml")
    model.save(folder / "alone.st")
    written = folder / "out" / "b.half.safetensors"
    assert written.read_bytes() == (folder / "alone.st").read_bytes()
    assert first.outcomes[2].bytes_after == written.stat().st_size
    assert first.outcomes[2].bytes_before == (folder / "models" / "b.pt").stat().st_size
    assert {path.suffix for path in (folder / "out" / FOLDER).iterdir()} <= {".json", ".lock"}

    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "ttcompress.jobs.workers", None)  # nothing can run
        again = run()
    assert was_cached(again) == [True] * 4
    assert [o.bytes_after for o in again.outcomes] == [o.bytes_after for o in first.outcomes]

    (folder / "half.yaml").write_text("{version: 1, budget: {factor: 3}, store: int8}")
    (folder / "out" / "a.balanced.safetensors").write_bytes(b"damaged")
    changed = run()
    assert was_cached(changed) == [False, False, False, True]
    assert ttcompress.load(folder / "out" / "a.balanced.safetensors")
    assert was_cached(run(force=True)) == [False] * 4


def test_a_broken_limit_is_broken_from_the_cache_too(run, folder) -> None:
    entry = "{path: models/*.pt, recipe: half.yaml, limits: {max_size: 9kB}}"
    first, again = run(f"version: 1\noutput: out\njobs: [{entry}]"), run()
    assert (first.exit_code, was_cached(first)) == (4, [False, False])
    assert (again.exit_code, was_cached(again)) == (4, [True, True])
    report = ttcompress.load(folder / "out" / "a.half.safetensors").report
    assert again.outcomes[0].limits == report.limits
    assert report.limits[0]["ok"] is False


def test_jobs_that_fail_stop_no_other_and_run_again(run, folder, own_task) -> None:
    (folder / "models" / "c.pt").write_bytes(b"no checkpoint")
    text = f"""
version: 1
output: out
jobs:
  - {{path: models/c.pt, recipe: half.yaml}}
  - {{path: models/b.pt, recipe: half.yaml, task: {{name: "{own_task}", error: exit}}}}
  - {{path: models/b.pt, recipe: small, task: {{name: "{own_task}", error: value}}}}
  - {{path: models/a.pt, recipe: half.yaml, task: "{own_task}"}}
"""
    result = run(text)
    assert (statuses(result), result.exit_code) == (["failed"] * 3 + ["done"], 5)
    unreadable, left, raised, done = result.outcomes
    assert unreadable.error.startswith(f"{folder}/models/c.pt: ")
    assert [o.kind for o in (unreadable, left, raised)] == [
        "CheckpointError",
        "SystemExit",
        "TaskError",
    ]
    assert re.fullmatch(
        r"task \S+: \S+\.py:\d+: ValueError: of a task. Correct the task.", raised.error
    )
    assert done.counting is not None
    assert done.counting[0] == "score"
    assert [path.name for path in (folder / "out").glob("*.safetensors")] == ["a.half.safetensors"]
    shutil.copy(folder / "models" / "a.pt", folder / "models" / "c.pt")
    assert was_cached(run()) == [False, False, False, True]


@pytest.mark.slow
def test_a_killed_worker_costs_its_job_two_more_starts_at_most(run, folder, own_task) -> None:
    task = f'name: "{own_task}", mark'
    text = f"""
version: 1
output: out
jobs:
  - {{path: models/a.pt, recipe: half.yaml, task: {{{task}: once, kills: 1}}}}
  - {{path: models/b.pt, recipe: half.yaml, task: {{{task}: always, kills: 99}}}}
"""
    result = run(text)
    once, always = result.outcomes
    assert (once.error, always.status) == ("", "failed")
    assert 2 <= once.attempts <= 3  # it may have run beside the other one, whose pool broke
    assert always.attempts == 3
    assert 2 <= (folder / "always.starts").stat().st_size <= 3
    assert always.error.startswith("its worker process died 3 times")
    assert result.exit_code == 5


@pytest.mark.parametrize("at_once", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_jobs_share_the_threads_of_the_cores(at_once, run, folder, own_task) -> None:
    text = f"version: 1\njobs: [{{path: models/*.pt, recipe: half.yaml, task: '{own_task}'}}]"
    assert run(text, engine=Engine(jobs=at_once)).exit_code == 0
    assert (folder / "mark.threads").read_text() == str(max(1, cpu_count() // at_once))


@pytest.mark.slow
def test_an_interrupted_batch_goes_on_where_it_stopped(run) -> None:
    def interrupt(outcome) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(on_outcome=interrupt)
    result = run()
    assert statuses(result) == ["done"] * 4
    assert 1 <= sum(was_cached(result)) < 4


@pytest.mark.slow
def test_two_batches_in_one_folder_do_each_job_once(run, folder, own_task) -> None:
    text = f"""
version: 1
output: out
task: {{name: "{own_task}", wait: 1}}
matrix: {{models: [models/*.pt], recipes: [half.yaml, balanced]}}
"""
    (folder / "manifest.yaml").write_text(text)
    command = [sys.executable, "-m", "ttcompress", "batch", "-q", "-j", "2", "manifest.yaml"]
    with subprocess.Popen([*command, "--json"], cwd=folder, stdout=subprocess.PIPE) as other:
        result = run()
        output, _ = other.communicate()
    assert (statuses(result), other.returncode) == (["done"] * 4, 0)
    theirs = json.loads(output)["jobs"]
    assert [job["status"] for job in theirs] == ["done"] * 4
    assert sum(was_cached(result)) + sum(job["cached"] for job in theirs) == 4
    assert (folder / "mark.starts").stat().st_size == 4


def test_an_outcome_comes_back_from_its_record_unless_that_is_damaged(jobs) -> None:
    job, *_ = queue_jobs(jobs())
    path = beside(job.output, ".json")
    path.parent.mkdir(parents=True)
    job.output.write_bytes(b"artifact")
    outcome = Outcome(job.output.name, "a", "half")
    record(job, Result(outcome.as_json()))
    found = find_record(job, Compression())
    assert found is not None
    assert outcome_of(job.payload, found) == replace(outcome, cached=True)
    path.write_text(path.read_text().replace('"attempts": 1', '"attempts": []'))
    assert find_record(job, Compression()) is None


def test_an_output_folder_that_cannot_be_made(run, folder) -> None:
    (folder / "out").write_text("a file")
    with pytest.raises(OutputError, match="cannot be made"):
        run()


def test_progress_is_told_under_the_name_of_each_job(run) -> None:
    seen = []
    run(progress=lambda stage, done, total, detail="": seen.append((stage, done, total)))
    assert seen[0] == ("batch", 0, 4)
    assert seen[-1] == ("batch", 4, 4)
    assert {stage for stage, *_ in seen} == {
        "batch",
        *(f"{model} under {recipe}" for model in "ab" for recipe in ("half", "balanced")),
    }
