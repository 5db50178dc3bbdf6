"""Runs jobs in worker processes through joblib: `run_in_workers` is the entry.

With loky, a worker that dies takes every running job of its pool with it; with Dask only its own,
which the scheduler gives to another worker. Either way no job starts more than three times.
"""

from __future__ import annotations

import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Generic

from joblib import Parallel, cpu_count, delayed, parallel_config
from joblib.externals.loky import get_reusable_executor

from ttcompress.errors import OutputError, TTCompressError
from ttcompress.jobs.board import Board
from ttcompress.jobs.cluster import connect, threads_here, worker_deaths
from ttcompress.jobs.engine import Engine
from ttcompress.jobs.job import Payload, QueuedJob, Result, Work
from ttcompress.jobs.records import beside, find_record, lock_output, record

MOST_STARTS = 3
"""A job whose worker dies gets two more attempts."""

_ONE_AT_A_TIME = Lock()  # the working folder and torch's threads belong to the whole process

_NO_NEWS = ("A worker stopped while some jobs", ".*tasks (which were still|have been)")
"""Warnings of joblib to silence: that a worker which has grown is restarted between two jobs, and
that an interrupted batch leaves jobs undone.
"""

_DIED = (
    f"its worker process died {MOST_STARTS} times (killed, or out of memory). "
    "Free memory, or run fewer jobs at once: -j 1."
)


@dataclass(frozen=True)
class Worker(Generic[Payload]):
    """Does one job after another in a worker process; what it raises becomes its result.

    Attributes:
        work: what is done.
        board: where starts and stages are written.
        threads: for each job; None for as many as the Dask worker has.
        force: rerun jobs that were done before.
    """

    work: Work[Payload]
    board: Board
    threads: int | None
    force: bool

    def __call__(self, job: QueuedJob[Payload]) -> tuple[Path, Result]:
        """Do one job, unless another batch has done it in the meantime.

        Returns:
            The job's output, which identifies it to the parent, and its result.
        """
        output = job.output
        try:
            with _ONE_AT_A_TIME, lock_output(output):
                if not self.force and (found := find_record(job, self.work)) is not None:
                    return output, found
                starts = self.board.start(output)
                if starts > MOST_STARTS:
                    result = Result(error=_DIED, kind="WorkerDied", attempts=MOST_STARTS)
                else:
                    result = replace(self._try(job), attempts=starts)
                if not result.error:
                    record(job, result)
                self.board.clear(output)
                return output, result
        except OSError as error:  # of the board or of the lock; the job's own are in its result
            message = (
                f"{beside(output, '').parent}: cannot be written: {error.strerror or error}. "
                "Free some space, or choose another `output.folder`."
            )
            return output, Result(error=message, kind=OutputError.__name__)
        except OutputError as error:
            return output, Result(error=str(error), kind=OutputError.__name__)

    def _try(self, job: QueuedJob[Payload]) -> Result:
        self.work.prepare()
        threads = self.threads or threads_here()
        started = time.monotonic()
        try:
            facts = self.work.run(job, threads, self.board.teller(job.output))
            return Result(facts, seconds=time.monotonic() - started)
        except TTCompressError as error:
            text, kind = str(error), type(error).__name__
        except (Exception, SystemExit) as error:  # a user's task can raise anything
            trace = "".join(traceback.format_exception(error))
            text, kind = f"{type(error).__name__}: {error}\n{trace}", type(error).__name__
        return Result(error=text, kind=kind, seconds=time.monotonic() - started)


Queue = Sequence[QueuedJob[Payload]]
Ended = Iterator[tuple[QueuedJob[Payload], Result]]


def run_in_workers(
    jobs: Queue[Payload], work: Work[Payload], engine: Engine, board: Board, force: bool
) -> Ended[Payload]:
    """Do all jobs; each gives exactly one result, whatever happens.

    Raises:
        MissingExtraError: the engine is Dask, and the extra is not installed.
        InputError: no scheduler answers, or its cluster cannot run the jobs.
        TTCompressError: worker processes die as they start.
    """
    at_once = min(engine.jobs or cpu_count(), len(jobs))
    threads = max(1, cpu_count() // at_once)
    worker = Worker(work, board, threads, force)
    with warnings.catch_warnings():
        for message in _NO_NEWS:
            warnings.filterwarnings("ignore", message, UserWarning)
        if engine.name == "dask":
            with connect(engine.scheduler, at_once, threads) as cluster:
                most = min(engine.jobs or len(jobs), cluster.workers)
                with parallel_config(backend=cluster.backend):
                    yield from _in_rounds(jobs, most, replace(worker, threads=None))
            return
        with parallel_config(backend="loky", inner_max_num_threads=threads):
            try:
                yield from _in_rounds(jobs, at_once, worker)
            except (KeyboardInterrupt, GeneratorExit):
                # A worker may have missed the interrupt, and would be waited for.
                get_reusable_executor(reuse=True).shutdown(wait=False, kill_workers=True)
                raise


def _in_rounds(jobs: Queue[Payload], at_once: int, worker: Worker[Payload]) -> Ended[Payload]:
    """One round after another, until no job is left.

    A round ends when a worker dies. Its jobs that were running then come last, each in a separate
    round, so that the one that kills its worker is told apart from its neighbours.
    """
    left, suspects = list(jobs), list[QueuedJob[Payload]]()
    while left or suspects:
        now = left or [suspects.pop()]
        unfinished = {job.output: job for job in now}
        run = Parallel(
            n_jobs=max(2, at_once if left else 1),  # joblib runs a single one in this process
            pre_dispatch=at_once if left else 1,
            batch_size=1,
            return_as="generator_unordered",
        )
        try:
            for output, result in run(delayed(worker)(job) for job in now):
                yield unfinished.pop(output), result
        except worker_deaths() as error:
            if len(unfinished) == len(now) and not any(map(worker.board.starts, unfinished)):
                raise TTCompressError(f"worker processes die as they start: {error}") from error
        left = [job for job in unfinished.values() if not worker.board.starts(job.output)]
        suspects += [job for job in unfinished.values() if job not in left]
