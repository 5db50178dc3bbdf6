"""Makes a Dask cluster a backend of joblib: `connect` to a scheduler, or start a cluster here.

Dask is an extra, imported only when a cluster is asked for. A cluster without workers is waited
for, at the start and again after all of them have died.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ttcompress.errors import InputError, MissingExtraError, TTCompressError

PATIENCE = 60
"""Seconds that a given scheduler has to get its first worker."""

_GAP = 30
"""Seconds in which none of our own worker processes may be alive: each is soon restarted."""


@dataclass(frozen=True)
class Cluster:
    """joblib's backend for a cluster, and the number of its workers."""

    backend: Any
    workers: int


def worker_deaths() -> tuple[type[Exception], ...]:
    """The exceptions that mean a dead worker: of loky, and of Dask if it is loaded."""
    dask: Any = sys.modules.get("distributed")
    return (BrokenProcessPool,) if dask is None else (BrokenProcessPool, dask.KilledWorker)


def threads_here() -> int:
    """The number of threads of the Dask worker that this code runs on."""
    threads: int = import_module("distributed").get_worker().state.nthreads
    return threads


@contextmanager
def connect(address: str | None, workers: int, threads: int) -> Iterator[Cluster]:
    """Connect to the cluster at an address, or without one start a cluster while the block runs.

    Args:
        address: the scheduler's, such as `tcp://host:8786`.
        workers: how many processes a cluster started here has.
        threads: how many threads each of them has.

    Raises:
        MissingExtraError: Dask is not installed.
        InputError: no scheduler answers, it has no worker, or one with another version.
        TTCompressError: the processes of a cluster started here die as they start.
    """
    try:
        distributed: Any = import_module("distributed")
    except ImportError as error:
        raise MissingExtraError(
            "--engine dask needs Dask, which is not installed. "
            "Install the extra: pip install 'ttcompress[dask]'."
        ) from error
    if address is None:
        with _own_cluster(distributed, workers, threads) as cluster:
            yield cluster
        return
    try:
        client = distributed.Client(address, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"--scheduler {address}: no Dask scheduler answers there ({error}). "
            "Start one with `dask scheduler`; its address is tcp://HOST:8786."
        ) from error

    def wait() -> None:
        try:
            client.wait_for_workers(1, timeout=PATIENCE)
        except TimeoutError as error:
            raise InputError(
                f"--scheduler {address}: no worker joined within {PATIENCE} seconds, but one is "
                f"needed. Start one with `dask worker {address}`."
            ) from error

    def installed() -> str | None:  # nested, so that it goes to the workers whole, not by name
        try:
            return version("ttcompress")
        except PackageNotFoundError:
            return None

    with client:
        wait()
        ours = version("ttcompress")
        for worker, theirs in client.run(installed).items():
            if theirs != ours:
                raise InputError(
                    f"--scheduler {address}: the worker {worker} has ttcompress {theirs}, but this "
                    f"machine has {ours}. Install the same version on both."
                )
        yield Cluster(_backend(client, wait), max(1, len(client.nthreads())))


@contextmanager
def _own_cluster(distributed: Any, workers: int, threads: int) -> Iterator[Cluster]:
    # A dead worker is restarted by its nanny, however long a busy machine takes for it; by
    # default the cluster gives up on the nanny after 15 seconds.
    patient = import_module("dask").config.set({"distributed.deploy.lost-worker-timeout": "1 day"})
    with patient:
        try:
            own = distributed.LocalCluster(  # waits for its workers
                n_workers=workers, threads_per_worker=threads, dashboard_address=":0"
            )
        except RuntimeError as error:
            raise TTCompressError(f"worker processes die as they start: {error}") from error
        with own, distributed.Client(own, set_as_default=False) as client:

            def wait() -> None:
                alive = time.monotonic()
                while not client.nthreads():
                    if any(nanny.is_alive() for nanny in own.workers.values()):
                        alive = time.monotonic()
                    if time.monotonic() - alive > _GAP:
                        raise TTCompressError(
                            f"worker processes die as they start: none lived for {_GAP} seconds"
                        )
                    time.sleep(0.1)

            yield Cluster(_backend(client, wait), workers)


def _backend(client: Any, wait: Callable[[], None]) -> Any:
    """Repair joblib's backend for Dask in three places.

    As shipped, it waits forever for a job that Dask has given up, waits only 10 seconds for a
    worker, and runs all jobs in this process if the cluster has a single thread.
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
            wait()
            slots: int = sum(client.nthreads().values())
            return max(2, slots)

    return Backend(client=client)
