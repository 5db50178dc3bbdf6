"""Workers and their records, for work that has nothing to do with models."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from ttcompress.jobs.board import Board
from ttcompress.jobs.job import Json, QueuedJob, Result
from ttcompress.jobs.records import beside, find_record, record
from ttcompress.jobs.workers import Worker
from ttcompress.system.progress import Progress


@dataclass(frozen=True)
class Doubling:
    """Writes twice a number; told a stage, and 13 is unlucky."""

    def prepare(self) -> None:
        pass

    def run(self, job: QueuedJob[int], threads: int, progress: Progress) -> Json:
        progress("double", 0, 1)
        if job.payload == 13:
            raise ValueError("unlucky")
        job.output.write_text(str(2 * job.payload))
        return {"doubled": 2 * job.payload}

    def check(self, facts: Json) -> None:
        if not isinstance(facts["doubled"], int):
            raise ValueError("not a number")


@pytest.fixture
def job(tmp_path: Path) -> QueuedJob[int]:
    output = tmp_path / "four.txt"
    beside(output, "").parent.mkdir(parents=True)
    return QueuedJob("two", "the key", output, 2)


@pytest.fixture
def worker(tmp_path: Path) -> Worker[int]:
    (tmp_path / "board").mkdir()
    return Worker(Doubling(), Board(tmp_path / "board"), threads=1, force=False)


def test_a_worker_takes_what_another_batch_has_done_meanwhile(job, worker) -> None:
    output, first = worker(job)
    assert (output, first.facts, first.error) == (job.output, {"doubled": 4}, "")
    assert (first.cached, first.attempts) == (False, 1)
    again = worker(job)[1]
    assert again.cached and again.facts["doubled"] == 4
    assert not replace(worker, force=True)(job)[1].cached
    assert [*worker.board.stages([job])] == []


def test_what_the_work_raises_is_the_result_and_no_record_is_made(job, worker) -> None:
    unlucky = replace(job, payload=13)
    result = worker(unlucky)[1]
    assert (result.kind, result.attempts) == ("ValueError", 1)
    assert result.error.startswith("ValueError: unlucky\nTraceback")
    assert find_record(unlucky, Doubling()) is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda job, path: path.unlink(),
        lambda job, path: path.write_text("{"),
        lambda job, path: path.write_text("{}"),
        lambda job, path: path.write_text("[]"),
        lambda job, path: path.write_text(path.read_text().replace(": 4", ": []")),
        lambda job, path: job.output.unlink(),
        lambda job, path: job.output.write_bytes(b"another"),
    ],
)
def test_a_record_that_does_not_hold_is_no_record(spoil, job) -> None:
    job.output.write_text("4")
    done = Result({"doubled": 4}, seconds=0.5, attempts=2)
    record(job, done)
    found = find_record(job, Doubling())
    assert found is not None
    assert (found.facts["doubled"], found.seconds, found.attempts) == (4, 0.5, 2)
    assert found.cached
    assert find_record(replace(job, key="another key"), Doubling()) is None
    spoil(job, beside(job.output, ".json"))
    assert find_record(job, Doubling()) is None
