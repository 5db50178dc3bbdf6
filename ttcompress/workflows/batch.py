"""Runs the jobs of a manifest, every model under every recipe, except those done before."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from ttcompress.jobs.engine import HERE, Engine
from ttcompress.jobs.queue import run_queue
from ttcompress.results.batch import BatchResult
from ttcompress.results.outcome import Outcome
from ttcompress.system.progress import Progress, silent
from ttcompress.workflows.baseline import judge_against, read_baseline
from ttcompress.workflows.batch_job import BatchJob, Compression, outcome_of, queue_jobs
from ttcompress.workflows.manifest import read_manifest

OnOutcome = Callable[[Outcome], None]


def batch(
    manifest: str | Path,
    *,
    engine: Engine = HERE,
    force: bool = False,
    baseline: str | Path | None = None,
    on_outcome: OnOutcome = lambda outcome: None,
    progress: Progress = silent,
) -> BatchResult:
    """Compress every model of a manifest under each of its recipes.

    Args:
        manifest: the manifest's file.
        engine: where jobs run; by default local worker processes, one per core.
        force: rerun jobs whose inputs have not changed.
        baseline: the JSON of an earlier batch; whatever got worse since breaks a limit.
        on_outcome: called with each outcome as it comes.
        progress: receives the stage of each running job, under its name.

    Raises:
        RecipeError: the manifest is wrong; every problem, with its line.
        TTCompressError: it or the baseline cannot be read, or nothing can be written. A failing
            job raises nothing: the failure is its outcome.
    """
    started = time.monotonic()
    before = None if baseline is None else read_baseline(Path(baseline))
    asked, jobs = read_manifest(Path(manifest))

    def judged(outcome: Outcome) -> Outcome:
        return judge_against(before, outcome, asked.baseline)

    found = run_jobs(
        jobs,
        engine=engine,
        force=force,
        on_outcome=lambda outcome: on_outcome(judged(outcome)),
        progress=progress,
    )
    done = tuple(map(judged, found))
    seconds = time.monotonic() - started
    return BatchResult(Path(manifest).name, done, seconds, tuple(job.output for job in jobs))


def run_jobs(
    jobs: Sequence[BatchJob],
    *,
    engine: Engine = HERE,
    force: bool = False,
    on_outcome: OnOutcome = lambda outcome: None,
    progress: Progress = silent,
) -> tuple[Outcome, ...]:
    """Run jobs, unless they were done before, and return their outcomes in the same order.

    Raises:
        OutputError: an output's folder cannot be made.
        TTCompressError: the engine is missing; see `jobs.workers.run_in_workers`.
    """
    queue = queue_jobs(jobs, engine.mixed_precision)
    work = Compression(engine.mixed_precision)
    found: dict[Path, Outcome] = {}
    progress("batch", 0, len(jobs))
    with closing(run_queue(queue, work, engine, force=force, progress=progress)) as results:
        for queued, result in results:
            outcome = found[queued.output] = outcome_of(queued.payload, result)
            on_outcome(outcome)
            progress(queued.name, 1, 1)
            progress("batch", len(found), len(jobs))
    return tuple(found[job.output] for job in jobs)
