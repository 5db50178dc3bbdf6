"""A Dask cluster, by the address of its scheduler or of our own, as a backend of joblib.

Dask is an extra: it is imported as a cluster is asked for. Both kinds of cluster are waited for
where they have no worker, at first and again after all of them have died.
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
"""Seconds that a cluster of someone else's has for its first worker."""

_GAP = 30
"""Seconds that none of our own worker processes may be alive: each is soon started anew."""


@dataclass(frozen=True)
class Cluster:
    """joblib's backend for a cluster, and how many workers this has."""

    backend: Any
    workers: int


def broken() -> tuple[type[Exception], ...]:
    """What tells that a worker died: in loky, and in Dask where that is loaded."""
    dask: Any = sys.modules.get("distributed")
    return (BrokenProcessPool,) if dask is None else (BrokenProcessPool, dask.KilledWorker)


def threads_here() -> int:
    """The threads of the Dask worker that this code runs on."""
    threads: int = import_module("distributed").get_worker().state.nthreads
    return threads


@contextmanager
def connect(address: str | None, workers: int, threads: int) -> Iterator[Cluster]:
    """The cluster at an address; without one, a cluster made here for as long as the block runs.

    Args:
        address: of a scheduler.
        workers: how many processes a cluster of our own has.
        threads: of each of these.

    Raises:
        MissingExtraError: Dask is not installed.
        InputError: no scheduler answers, it has no worker, or one of another version.
        TTCompressError: the processes of our own cluster die as they start.
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
    # A worker that died is started anew by its nanny, however long a busy machine takes for it;
    # by default the cluster gives up its nanny after 15 seconds.
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
    """joblib's backend for Dask, mended in three places.

    joblib waits for ever for a job that Dask has given up, for 10 seconds for a worker, and runs
    all jobs in this process where the cluster has a single thread.
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
