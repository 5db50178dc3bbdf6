"""Runs a queue of jobs, in worker processes of this machine or on a Dask cluster.

`run_queue` is the entry. It knows of a job its name, its key and its output, and nothing of what is
done for it: that is the business of a `Work`.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

from ttcompress.errors import OutputError
from ttcompress.jobs.board import open_board
from ttcompress.jobs.engine import Engine
from ttcompress.jobs.job import Payload, QueuedJob, Result, Work
from ttcompress.jobs.records import beside, recorded
from ttcompress.system.progress import Progress, silent


def run_queue(
    jobs: Sequence[QueuedJob[Payload]],
    work: Work[Payload],
    engine: Engine,
    *,
    force: bool = False,
    progress: Progress = silent,
) -> Generator[tuple[QueuedJob[Payload], Result]]:
    """Yield the result of every job: at once of those done before, of the others as they end.

    Args:
        jobs: no two have the same output.
        work: what is done for each.
        engine: where.
        force: run what was done before again.
        progress: told the stage of each running job, under its name.

    Raises:
        OutputError: an output's folder cannot be made.
        TTCompressError: the engine is not there; see `workers.run_in_workers`. A job that fails
            raises nothing: that is its result.
    """
    left = []
    for job in jobs:
        result = None if force else recorded(job, work)
        if result is None:
            left.append(job)
        else:
            yield job, result
    if not left:
        return
    from ttcompress.jobs.workers import run_in_workers  # joblib, which a cached batch needs not

    folders = [beside(job.output, "").parent for job in left]
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"{folder}: cannot be created: {error.strerror}. Choose another `output.folder`."
            ) from error
    with open_board(folders[0], left, progress) as board:
        yield from run_in_workers(left, work, engine, board, force)
