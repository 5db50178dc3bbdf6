"""A Dask cluster of our own."""

from __future__ import annotations

import os
import signal
import time

import pytest

from ttcompress.jobs.cluster import connect

pytest.importorskip("distributed")


@pytest.mark.slow
def test_our_own_workers_are_waited_for_while_they_start_anew() -> None:
    """joblib would wait for 10 seconds, and a busy machine may take longer."""
    with connect(None, workers=1, threads=1) as cluster:
        client = cluster.backend.client
        (before,) = client.nthreads()
        os.kill(client.run(os.getpid)[before], signal.SIGKILL)
        while before in client.nthreads():
            time.sleep(0.01)
        assert cluster.backend.effective_n_jobs(1) >= 1
        assert client.submit(os.getpid).result(timeout=60)
