"""`bench` by what it prints and exits with; its measuring is in tests/bench."""

from __future__ import annotations

import pytest

from ttcompress.results.benchmark import DENSE, SMALL, BenchLayer, Benchmark, TimedRun
from ttcompress.system.timing import Timing

pytest.importorskip("onnxruntime")

from ttcompress.workflows import bench as way


@pytest.fixture(autouse=True)
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A benchmark that was 3 times faster, in no time."""
    rows = tuple(
        TimedRun("lstm", 1, run, Timing(median, median, median, 9), 3.0 / median, 1000)
        for run, median in ((DENSE[0], 3.0), (SMALL[0], 1.0))
    )
    found = Benchmark(5, 1, "wall", (BenchLayer("lstm", 8, 4.0),), rows)
    monkeypatch.setattr(way, "bench", lambda *_, **__: found)


def test_bench_prints_a_table_and_a_verdict(run, tiny_artifact) -> None:
    result = run("bench", tiny_artifact, "--steps", "5", "--batch", "1")
    lines = result.out.splitlines()
    assert lines[0] == str(tiny_artifact)
    assert lines[2].split() == ["layer", "batch", "run", "ms", "quartiles", "speed-up", "bytes"]
    assert "time of 5 steps on 1 thread of this machine" in result.out
    assert lines[-1].startswith("lstm, batch 1: 3x faster, 1 ms (torch compressed)")


def test_report_shows_it_and_leaves_the_file(run, folder, tiny_artifact) -> None:
    before = tiny_artifact.read_bytes()
    result = run("report", tiny_artifact, "--bench")
    assert "\nlstm, batch 1: 3x faster" in result.out
    assert "torch dense" in result.out
    page = run("report", tiny_artifact, "--bench", "--as", "markdown").out
    assert "| lstm | 1 | torch dense | 3.000 |" in page
    assert "\n- lstm, batch 1: 3x faster" in page
    assert run("report", tiny_artifact, "--bench", "--json").json["bench"]["speed_up"] == 3.0
    assert run("report", tiny_artifact, "--json").json["bench"] is None
    assert tiny_artifact.read_bytes() == before


def test_report_of_several_files_names_each(run, tiny_artifact) -> None:
    result = run("report", tiny_artifact, tiny_artifact, "--bench")
    verdict = f"{tiny_artifact}: lstm, batch 1: 3x faster"
    assert sum(line.startswith(verdict) for line in result.out.splitlines()) == 2


@pytest.mark.parametrize(("wanted", "code"), [("2.5", 0), ("3.5", 4)])
def test_a_limit_that_breaks_is_exit_4(run, tiny_artifact, wanted, code) -> None:
    result = run("bench", tiny_artifact, "--steps", "5", "--min-speedup", wanted, "--json")
    assert result.code == code
    assert result.json["speed_up"] == 3.0
    assert ("limit broken: min_speedup is 3.5, but got 3" in result.err) == (code == 4)


def test_a_batch_that_is_no_number_is_refused(run, tiny_artifact) -> None:
    assert run("bench", tiny_artifact, "--batch", "one").code == 2
