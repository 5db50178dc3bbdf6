"""Jobs and what to do with each come in; outcomes leave as they finish. joblib runs them.

A worker that dies takes every job with it that runs in the same pool (loky), or its own job alone
(Dask, whose scheduler gives it to another worker). Either way a job is started three times at most.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from joblib import Parallel, cpu_count, delayed, parallel_config

from ttcompress.batch.board import Board
from ttcompress.batch.engine import Engine
from ttcompress.batch.job import Job
from ttcompress.batch.outcome import Outcome
from ttcompress.batch.work import MOST_STARTS, Work
from ttcompress.errors import InputError, MissingExtraError

Calls = Mapping[Job, str]
"""Jobs with their keys."""


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
    if engine.name == "loky":
        yield from _on_loky(calls, at_once, Work(board, threads, force))
    else:
        with _cluster(engine.scheduler, at_once, threads) as client:
            most = min(engine.jobs or len(calls), len(client.scheduler_info()["workers"]))
            with parallel_config(backend="dask", client=client):
                yield from _parallel(calls, Work(board, None, force), most, n_jobs=-1)


def _on_loky(calls: Calls, at_once: int, work: Work) -> Iterator[tuple[Job, Outcome]]:
    """A pool after another, until no job is left.

    A pool breaks as one of its workers dies. Those of its jobs that were running come last, each in
    a pool of its own: then the one that kills its worker is told from those that were beside it.
    """
    left, suspects = dict(calls), dict[Job, str]()
    with parallel_config(backend="loky", inner_max_num_threads=work.threads), _no_restart_warning():
        while left or suspects:
            now = left or dict([suspects.popitem()])
            at_most = at_once if left else 1
            finished = set()
            try:
                # One job at a time in a pool of two: joblib would run it in this process for one.
                for job, outcome in _parallel(now, work, at_most, n_jobs=max(2, at_once)):
                    finished.add(job)
                    yield job, outcome
            except BrokenProcessPool:
                pass
            unfinished = {job: key for job, key in now.items() if job not in finished}
            left = {job: key for job, key in unfinished.items() if not work.board.starts(job)}
            suspects |= {job: key for job, key in unfinished.items() if job not in left}


def _parallel(calls: Calls, work: Work, at_once: int, n_jobs: int) -> Iterator[tuple[Job, Outcome]]:
    by_output = {job.output: job for job in calls}
    run = Parallel(
        n_jobs=n_jobs, pre_dispatch=at_once, batch_size=1, return_as="generator_unordered"
    )
    for output, outcome in run(delayed(work)(job, key) for job, key in calls.items()):
        yield by_output[output], outcome


@contextmanager
def _no_restart_warning() -> Iterator[None]:
    """loky starts a worker anew that has grown, between two jobs: nothing to warn anybody of."""
    message = "A worker stopped while some jobs were given"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message, UserWarning)
        yield


@contextmanager
def _cluster(address: str | None, at_once: int, threads: int) -> Iterator[Any]:
    """A client of the cluster at an address, or of one made for the time being."""
    try:
        dask: Any = import_module("dask")
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
    settings = {"distributed.scheduler.allowed-failures": MOST_STARTS}
    # joblib runs everything in this process where a cluster has one thread in all.
    threads = max(2, threads) if at_once == 1 else threads
    with (
        dask.config.set(settings),
        distributed.LocalCluster(
            n_workers=at_once, threads_per_worker=threads, dashboard_address=None
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
        slots = sum(client.ncores().values())
        if slots < 2:
            raise InputError(
                f"--scheduler {address}: its workers have {slots} threads in all, and joblib needs "
                "2. Start another worker: dask worker."
            )
        allowed = client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.allowed_failures)
        if allowed < MOST_STARTS:
            raise InputError(
                f"--scheduler {address}: gives a job up after {allowed} dead workers, and a batch "
                f"after {MOST_STARTS}. Start it with "
                f"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES={MOST_STARTS}."
            )
        yield client
