"""Jobs or a manifest come in; those that are not cached run, and outcomes or a result go out."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread

from ttcompress.errors import OutputError
from ttcompress.jobs.engine import HERE, Engine
from ttcompress.results.batch import BatchResult
from ttcompress.results.outcome import Outcome
from ttcompress.system.progress import Progress, silent
from ttcompress.workflows.baseline import judged_against, read_baseline
from ttcompress.workflows.batch_job import Job, job_keys
from ttcompress.workflows.board import PAUSE, Board
from ttcompress.workflows.manifest import read_manifest
from ttcompress.workflows.records import beside, recorded

Told = Callable[[Outcome], None]


def batch(
    manifest: str | Path,
    *,
    engine: Engine = HERE,
    force: bool = False,
    baseline: str | Path | None = None,
    told: Told = lambda outcome: None,
    progress: Progress = silent,
) -> BatchResult:
    """Compress every model of a manifest under every recipe it names for it.

    Args:
        manifest: its file.
        engine: where jobs run; by default worker processes here, one for each core.
        force: run jobs again whose inputs have not changed.
        baseline: the JSON of an earlier batch: what became worse since is a broken limit.
        told: called with each outcome as it comes.
        progress: told where each running job is, under its name.

    Raises:
        RecipeError: the manifest is wrong; every problem, with its line.
        TTCompressError: it or the baseline cannot be read, or nothing can be written. A job that
            fails raises nothing: it is an outcome.
    """
    started = time.monotonic()
    before = None if baseline is None else read_baseline(Path(baseline))
    asked, jobs = read_manifest(Path(manifest))

    def judged(outcome: Outcome) -> Outcome:
        return judged_against(before, outcome, asked.baseline)

    found = run_jobs(
        jobs,
        engine=engine,
        force=force,
        told=lambda outcome: told(judged(outcome)),
        progress=progress,
    )
    done = tuple(map(judged, found))
    return BatchResult(Path(manifest).name, done, time.monotonic() - started)


def run_jobs(
    jobs: Sequence[Job],
    *,
    engine: Engine = HERE,
    force: bool = False,
    told: Told = lambda outcome: None,
    progress: Progress = silent,
) -> tuple[Outcome, ...]:
    """Run jobs, unless they were done before, and give their outcomes in the order of the jobs.

    Raises:
        OutputError: an output's folder cannot be made.
        TTCompressError: the engine is not there; see `workers.outcomes`.
    """
    keys = job_keys(jobs, engine.mixed_precision)
    found: dict[Job, Outcome] = {}
    progress("batch", 0, len(jobs))
    with closing(_each(keys, engine, force, progress)) as each:
        for job, outcome in each:
            found[job] = outcome
            told(outcome)
            progress(job.name, 1, 1)
            progress("batch", len(found), len(jobs))
    return tuple(found[job] for job in jobs)


def _each(
    keys: Mapping[Job, str], engine: Engine, force: bool, progress: Progress
) -> Generator[tuple[Job, Outcome]]:
    """What is recorded at once, then the rest as it is done."""
    known = {} if force else {job: recorded(job, key) for job, key in keys.items()}
    for job, outcome in known.items():
        if outcome is not None:
            yield job, outcome
    left = {job: key for job, key in keys.items() if known.get(job) is None}
    if not left:
        return
    from ttcompress.workflows.workers import outcomes  # joblib, which a cached batch needs not

    records = [_records_made(job) for job in left]
    with (
        _board_made(records[0]) as folder,
        _stages_told(Board(Path(folder)), tuple(left), progress) as board,
    ):
        yield from outcomes(left, engine, board, force)


def _records_made(job: Job) -> Path:
    """The folder of a job's records, and with it that of its output.

    Raises:
        OutputError: it cannot be made.
    """
    folder = beside(job, "").parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be made: {error.strerror}. Give another `output.folder`."
        ) from error
    return folder


@contextmanager
def _board_made(records: Path) -> Iterator[str]:
    """A folder for what running jobs tell, as long as the block runs.

    Raises:
        OutputError: it cannot be made.
    """
    try:
        # A job that is interrupted may still be writing there.
        made = TemporaryDirectory(prefix="run-", dir=records, ignore_cleanup_errors=True)
    except OSError as error:
        raise OutputError(
            f"{records}: cannot be written: {error.strerror}. Give another `output.folder`."
        ) from error
    with made as folder:
        yield folder


@contextmanager
def _stages_told(board: Board, jobs: Sequence[Job], progress: Progress) -> Iterator[Board]:
    """Pass on, for as long as the block runs, what running jobs tell."""
    if progress is silent:
        yield board
        return
    over = Event()

    def listen() -> None:
        while not over.wait(PAUSE):
            for job, stage, done, total in board.stages(jobs):
                progress(job.name, done, total, stage)

    thread = Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield board
    finally:
        over.set()
        thread.join()
