"""Benchmarks: dense ONNX layers are right, all ways are timed, words say what numbers do."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from time import sleep

import numpy as np
import pytest
import torch
from torch import nn

import ttcompress
from ttcompress.results.benchmark import DENSE, SMALL, BenchLayer, Benchmark, TimedRun
from ttcompress.system.timing import CLOCKS, LEAST, Timing, clock_for, timings

pytest.importorskip("onnxruntime")

from ttcompress.targets.onnx.dense import dense_int8, dense_model
from ttcompress.targets.onnx.sessions import start_session

KINDS = {
    "lstm": nn.LSTM(6, 8),
    "stacked lstm both ways": nn.LSTM(6, 8, num_layers=2, bidirectional=True),
    "lstm without bias": nn.LSTM(6, 8, bias=False),
    "gru": nn.GRU(6, 8, bidirectional=True),
    "rnn": nn.RNN(6, 8),
    "relu rnn": nn.RNN(6, 8, nonlinearity="relu"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_dense_onnx_layer_computes_torchs_outputs(kind) -> None:
    layer, x = KINDS[kind].eval(), torch.randn(7, 3, 6)
    model = dense_model(layer)
    found = start_session(model.SerializeToString()).run(None, {"x": x.numpy()})[0]
    with torch.no_grad():
        np.testing.assert_allclose(found, layer(x)[0], atol=1e-5)


def test_a_dense_lstm_in_int8_is_near() -> None:
    layer, x = KINDS["lstm"].eval(), torch.randn(7, 3, 6)
    rounded = dense_int8(dense_model(layer))
    found = start_session(rounded.SerializeToString()).run(None, {"x": x.numpy()})[0]
    with torch.no_grad():
        gap = torch.from_numpy(found) - layer(x)[0]
    assert 0 < gap.abs().max() < 0.05


def test_what_onnx_cannot_run_is_left_out() -> None:
    assert dense_model(nn.LSTM(6, 8, proj_size=3)) is None
    assert dense_int8(dense_model(KINDS["gru"])) is None


@pytest.mark.parametrize("clock", CLOCKS)
def test_calls_take_turns_until_each_was_timed_often_enough(clock) -> None:
    order: list[str] = []
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    found = timings(calls, 0.0, clock)
    assert all(timing.calls >= LEAST for timing in found.values())
    assert all(t.low <= t.median <= t.high for t in found.values())
    assert order[:3] == ["a", "b", "a"]


def test_waiting_is_time_on_the_wall_alone() -> None:
    calls = {"sleep": partial(sleep, 0.0005)}
    assert timings(calls, 0.0, "wall")["sleep"].median >= 0.5
    assert timings(calls, 0.0, "processor")["sleep"].median < 0.5


def test_one_thread_is_timed_by_what_it_worked() -> None:
    assert clock_for(1) == ("processor" if os.name == "posix" else "wall")
    assert clock_for(2) == "wall"


@pytest.mark.slow
def test_every_way_is_timed_with_every_batch(tiny_artifact: Path) -> None:
    found = ttcompress.bench(tiny_artifact, batches=(1, 2), steps=3, seconds=0.2)
    assert found.clock == clock_for(1)
    assert [(row.batch, row.run) for row in found.rows] == [
        (batch, run) for batch in (1, 2) for run in (*DENSE, *SMALL)
    ]
    fastest = min(row.time.median for row in found.rows[:3])
    assert found.rows[3].speed_up == pytest.approx(fastest / found.rows[3].time.median)
    assert found.rows[0].bytes == 4 * (32 * (6 + 8 + 2) + 32 * (8 + 8 + 2))


def benchmark(dense: float, small: float, fewer: float = 8.0) -> Benchmark:
    def row(run: str, median: float) -> TimedRun:
        return TimedRun("lstm", 1, run, Timing(median, median, median, 9), dense / median, 100)

    rows = (
        row(DENSE[0], 2 * dense),
        row(DENSE[2], dense),
        row(SMALL[0], 9.0),
        row(SMALL[1], small),
    )
    return Benchmark(35, 1, "wall", (BenchLayer("lstm", 64, fewer),), rows)


@pytest.mark.slow
def test_what_int8_would_ruin_is_left_out_with_the_reason(tiny_artifact, monkeypatch) -> None:
    monkeypatch.setattr(sys.modules["ttcompress.workflows.export"], "ROUNDED_LIMITS", {"int8": 0.0})
    found = ttcompress.bench(tiny_artifact, batches=(1,), steps=5, seconds=0.01)
    assert [row.run for row in found.rows] == [*DENSE, *SMALL[:2], *SMALL[3:]]
    assert any("not timed: onnx compressed int8: lstm:" in line for line in found.remarks())


def test_the_fastest_of_each_side_are_compared() -> None:
    assert benchmark(dense=4.0, small=2.0).speed_up == 2.0
    (remark,) = benchmark(dense=4.0, small=2.0).remarks()
    assert (
        remark == "lstm, batch 1: 2x faster, 2 ms (onnx compressed) against 4 ms (onnx dense int8)"
    )


@pytest.mark.parametrize(
    ("fewer", "reason"), [(1.5, "only 1.5x fewer multiply-adds"), (8.0, "small operations")]
)
def test_slower_is_said_and_why(fewer, reason) -> None:
    (remark,) = benchmark(dense=1.0, small=2.0, fewer=fewer).remarks()
    assert "2x SLOWER" in remark
    assert reason in remark


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batches": (0,)}, "batch must be at least 1, got 0"),
        ({"batches": ()}, "batch must be at least 1, got 0"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
    ],
)
def test_numbers_below_one_are_refused(tiny_artifact, options, message) -> None:
    with pytest.raises(ttcompress.RecipeError, match=message):
        ttcompress.bench(tiny_artifact, **options)
