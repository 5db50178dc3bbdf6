"""Runs a queue of jobs, in worker processes of this machine or on a Dask cluster.

`run_queue` is the entry. It sees only a job's name, key and output; what is done for the job is up
to a `Work`.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

from ttcompress.jobs.board import open_board
from ttcompress.jobs.engine import Engine
from ttcompress.jobs.job import Payload, QueuedJob, Result, Work
from ttcompress.jobs.records import beside, find_record
from ttcompress.system.files import make_folder
from ttcompress.system.progress import Progress, silent


def run_queue(
    jobs: Sequence[QueuedJob[Payload]],
    work: Work[Payload],
    engine: Engine,
    *,
    force: bool = False,
    progress: Progress = silent,
) -> Generator[tuple[QueuedJob[Payload], Result]]:
    """Yield the result of every job: first those done before, then the others as they finish.

    Args:
        jobs: no two share an output.
        work: what is done for each.
        engine: where they run.
        force: rerun jobs that were done before.
        progress: receives the stage of each running job, under its name.

    Raises:
        OutputError: an output's folder cannot be made.
        TTCompressError: the engine is missing; see `workers.run_in_workers`. A failing job raises
            nothing: the failure is its result.
    """
    left = []
    for job in jobs:
        result = None if force else find_record(job, work)
        if result is None:
            left.append(job)
        else:
            yield job, result
    if not left:
        return
    from ttcompress.jobs.workers import run_in_workers  # joblib, not needed for a cached batch

    folders = [beside(job.output, "").parent for job in left]
    for folder in folders:
        make_folder(folder, "`output.folder`")
    with open_board(folders[0], left, progress) as board:
        yield from run_in_workers(left, work, engine, board, force)
