"""Jobs and what to do with each come in; outcomes leave as they finish. joblib runs them.

A worker that dies takes every job with it that runs in the same pool (loky), or its own job alone,
which the scheduler gives to another worker (Dask). Either way no job starts more than three times.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from importlib.metadata import version
from typing import Any

from joblib import Parallel, cpu_count, delayed, parallel_config
from joblib.externals.loky import get_reusable_executor

from ttcompress.errors import InputError, MissingExtraError, TTCompressError
from ttcompress.jobs.engine import Engine
from ttcompress.results.outcome import Outcome
from ttcompress.workflows.batch_job import Job
from ttcompress.workflows.batch_work import Work
from ttcompress.workflows.board import Board

Calls = Mapping[Job, str]
"""Jobs with their keys."""

_PATIENCE = 10
"""Seconds that a cluster has for its first worker."""

_NO_NEWS = ("A worker stopped while some jobs", ".*tasks (which were still|have been)")
"""What joblib warns of: a worker that has grown is started anew between two jobs, and a batch that
is interrupted leaves jobs undone.
"""


def outcomes(
    calls: Calls, engine: Engine, board: Board, force: bool
) -> Iterator[tuple[Job, Outcome]]:
    """Run jobs; each ends in one outcome, whatever happens to it.

    Raises:
        MissingExtraError: the engine is Dask, and the extra is not installed.
        InputError: no scheduler answers, or its cluster cannot run jobs.
    """
    at_once = min(engine.jobs or cpu_count(), len(calls))
    threads = max(1, cpu_count() // at_once)
    work = Work(board, threads, force, engine.mixed_precision)
    with warnings.catch_warnings():
        for message in _NO_NEWS:
            warnings.filterwarnings("ignore", message, UserWarning)
        if engine.name == "loky":
            with parallel_config(backend="loky", inner_max_num_threads=threads):
                try:
                    yield from _in_rounds(calls, at_once, work)
                except (KeyboardInterrupt, GeneratorExit):
                    # A worker may have missed the interruption, and would be waited for.
                    get_reusable_executor(reuse=True).shutdown(wait=False, kill_workers=True)
                    raise
            return
        with _cluster(engine.scheduler, at_once, threads) as client:
            most = min(engine.jobs or len(calls), len(client.scheduler_info()["workers"]))
            with parallel_config(backend=_backend(client)):
                yield from _in_rounds(calls, most, replace(work, threads=None))


def _in_rounds(calls: Calls, at_once: int, work: Work) -> Iterator[tuple[Job, Outcome]]:
    """One round after another, until no job is left.

    A round breaks as a worker dies. Those of its jobs that were running come last, each in a round
    of its own: then the one that kills its worker is told from those that were beside it.
    """
    left, suspects = dict(calls), dict[Job, str]()
    while left or suspects:
        now = left or dict([suspects.popitem()])
        finished = set()
        try:
            for job, outcome in _parallel(now, work, at_once if left else 1):
                finished.add(job)
                yield job, outcome
        except _broken() as error:
            if not finished and not any(map(work.board.starts, now)):
                raise TTCompressError(f"worker processes die as they start: {error}") from error
        unfinished = {job: key for job, key in now.items() if job not in finished}
        left = {job: key for job, key in unfinished.items() if not work.board.starts(job)}
        suspects |= {job: key for job, key in unfinished.items() if job not in left}


def _parallel(calls: Calls, work: Work, at_once: int) -> Iterator[tuple[Job, Outcome]]:
    by_output = {job.output: job for job in calls}
    run = Parallel(
        n_jobs=max(2, at_once),  # joblib would run a single job at a time in this process
        pre_dispatch=at_once,
        batch_size=1,
        return_as="generator_unordered",
    )
    for output, outcome in run(delayed(work)(job, key) for job, key in calls.items()):
        yield by_output[output], outcome


def _broken() -> tuple[type[Exception], ...]:
    """What tells that a worker died: in loky, and in Dask where that is loaded."""
    dask: Any = sys.modules.get("distributed")
    return (BrokenProcessPool,) if dask is None else (BrokenProcessPool, dask.KilledWorker)


def _backend(client: Any) -> Any:
    """joblib's backend for Dask, mended in two places.

    joblib waits for ever for a job that Dask has given up, and runs all jobs in this process where
    the cluster has a single thread.
    """
    from joblib._dask import DaskDistributedBackend  # of the extra

    class Backend(DaskDistributedBackend):  # type: ignore[misc]
        def submit(self, func: Any, callback: Any = None) -> Any:
            future = super().submit(func, callback)
            future.add_done_callback(lambda done: callback(done) if done.exception() else None)
            return future

        def retrieve_result_callback(self, out: Any) -> Any:
            if isinstance(out, Future):
                return out.result()  # raises
            return super().retrieve_result_callback(out)

        def effective_n_jobs(self, n_jobs: int) -> int:
            slots: int = super().effective_n_jobs(n_jobs)
            return max(2, slots)

    return Backend(client=client)


@contextmanager
def _cluster(address: str | None, at_once: int, threads: int) -> Iterator[Any]:
    """A client of the cluster at an address, or of one made for the time being."""
    try:
        distributed: Any = import_module("distributed")
    except ImportError as error:
        raise MissingExtraError(
            "--engine dask: needs Dask, which is not installed. "
            "Install it: pip install 'ttcompress[dask]'."
        ) from error
    if address is not None:
        with _connected(distributed.Client, address) as client:
            yield client
        return
    with (
        distributed.LocalCluster(
            n_workers=at_once, threads_per_worker=threads, dashboard_address=":0"
        ) as own,
        distributed.Client(own, set_as_default=False) as client,
    ):
        yield client


@contextmanager
def _connected(client_of: Callable[..., Any], address: str) -> Iterator[Any]:
    try:
        client = client_of(address, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"--scheduler {address}: no Dask scheduler answers there ({error}). "
            "Start one: dask scheduler; its address is tcp://HOST:8786."
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=_PATIENCE)
        except TimeoutError as error:
            raise InputError(
                f"--scheduler {address}: it had no worker in {_PATIENCE} seconds, and one is "
                f"needed. Start one: dask worker {address}."
            ) from error
        ours = version("ttcompress")
        for worker, theirs in client.run(_installed_version()).items():
            if theirs != ours:
                raise InputError(
                    f"--scheduler {address}: the worker {worker} has ttcompress {theirs}, and here "
                    f"it is {ours}. Install the same version in both places."
                )
        yield client


def _installed_version() -> Callable[[], str | None]:
    """What a worker runs to say its version: a nested function goes there whole, not by name."""

    def installed() -> str | None:
        from importlib.metadata import PackageNotFoundError, version  # there, not here

        try:
            return version("ttcompress")
        except PackageNotFoundError:
            return None

    return installed
