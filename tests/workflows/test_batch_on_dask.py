"""The Dask engine on a real scheduler with two real workers on loopback."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from ttcompress.errors import InputError, MissingExtraError
from ttcompress.jobs.engine import Engine
from ttcompress.workflows.batch import batch

dask = pytest.importorskip("dask")
distributed = pytest.importorskip("distributed")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """The address of a scheduler with two worker processes, which are started anew as they die.

    It gives a job to another worker once; after that, joblib alone would wait for ever. A busy
    machine may take longer to start a worker anew than a local cluster waits by default.
    """
    settings = {
        "distributed.scheduler.allowed-failures": 1,
        "distributed.deploy.lost-worker-timeout": "1 hour",
    }
    with (
        dask.config.set(settings),
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            host="127.0.0.1",
            scheduler_port=0,
            dashboard_address=":0",
        ) as cluster,
    ):
        yield cluster.scheduler_address


def test_a_killed_worker_costs_its_job_two_more_starts_at_most(
    scheduler: str, folder: Path, own_task: str
) -> None:
    task = f'name: "{own_task}", mark'
    (folder / "manifest.yaml").write_text(
        f"""
version: 1
output: out
jobs:
  - {{path: models/a.pt, recipe: half.yaml, task: {{{task}: once, kills: 1}}}}
  - {{path: models/b.pt, recipe: half.yaml, task: {{{task}: always, kills: 99}}}}
"""
    )
    engine = Engine("dask", scheduler=scheduler)
    result = batch(folder / "manifest.yaml", engine=engine)
    once, always = result.outcomes
    assert once.error == ""
    assert 2 <= once.attempts <= 3
    assert (always.kind, always.attempts) == ("WorkerDied", 3)
    assert 2 <= (folder / "always.starts").stat().st_size <= 3
    assert result.exit_code == 5


def test_without_an_address_dask_has_a_cluster_of_its_own(folder: Path) -> None:
    result = batch(folder / "manifest.yaml", engine=Engine("dask", jobs=1))
    assert [outcome.status for outcome in result.outcomes] == ["done"] * 4


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nothing://here"])
def test_an_address_where_nobody_answers(address: str, folder: Path) -> None:
    soon = dask.config.set({"distributed.comm.timeouts.connect": "1s"})
    with soon, pytest.raises(InputError, match=f"--scheduler {address}: no Dask scheduler"):
        batch(folder / "manifest.yaml", engine=Engine("dask", scheduler=address))


def test_a_cluster_without_a_worker_is_not_waited_for_long(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = import_module("ttcompress.jobs.cluster")
    monkeypatch.setattr(cluster, "PATIENCE", 1)
    alone = distributed.LocalCluster(
        n_workers=0, host="127.0.0.1", scheduler_port=0, dashboard_address=":0"
    )
    with (
        alone,
        pytest.raises(InputError, match=r"no worker joined within 1 seconds.*dask worker tcp://"),
    ):
        batch(folder / "manifest.yaml", engine=Engine("dask", scheduler=alone.scheduler_address))


def test_without_the_extra_the_engine_says_how_to_get_it(folder: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ttcompress\[dask\]'"):
        batch(folder / "manifest.yaml", engine=Engine("dask"))
