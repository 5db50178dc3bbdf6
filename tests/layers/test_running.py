from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from ttcompress.layers import replace_layer
from ttcompress.layers.speed import LayerWork, MatrixWork, Way, faster_product, faster_way
from ttcompress.trains.train import Train


def lstm(hidden: int, rank: int) -> tuple[LayerWork, ...]:
    whole = 4 * hidden * hidden
    matrix = MatrixWork(whole, 5 * hidden * rank, calls=2, rebuild=whole * rank)
    return (LayerWork("LSTM", hidden, matrix, matrix, None),)


MEASURED: list[tuple[int, int, int, int, Way]] = [
    # hidden, rank, batch, steps
    (650, 40, 1, 35, "factored"),
    (1024, 64, 1, 35, "factored"),
    (1500, 93, 1, 35, "factored"),
    (1024, 64, 32, 35, "factored"),
    (256, 16, 32, 35, "factored"),
    (1024, 64, 1, 1, "factored"),
    (64, 4, 1, 35, "rebuilt"),
    (64, 32, 128, 35, "rebuilt"),
    (128, 64, 16, 35, "rebuilt"),
    (256, 128, 4, 35, "rebuilt"),
    (64, 4, 1, 1, "rebuilt"),
    (1024, 1024, 32, 35, "rebuilt"),
]


@pytest.mark.parametrize(("hidden", "rank", "batch", "steps", "way"), MEASURED)
def test_the_model_takes_the_way_that_was_measured_faster(
    hidden: int, rank: int, batch: int, steps: int, way: Way
) -> None:
    assert faster_way(lstm(hidden, rank), batch, steps, "cpu", tracked=False) == way


def test_an_accelerator_runs_the_fused_kernel() -> None:
    assert faster_way(lstm(1500, 1), 1, 35, "cuda", tracked=False) == "rebuilt"


def test_rebuilding_at_every_call_counts() -> None:
    layers = lstm(128, 128)
    assert faster_way(layers, 1, 1, "cpu", tracked=False) == "rebuilt"
    assert faster_way(layers, 1, 1, "cpu", tracked=True) == "factored"


def test_a_product_is_factored_where_that_is_less_work() -> None:
    narrow = MatrixWork(10**6, 10**5, calls=2, rebuild=10**8)
    wide = MatrixWork(10**6, 2 * 10**6, calls=2, rebuild=10**9)
    assert faster_product(narrow, 8, rebuild=False) == "factored"
    assert faster_product(wide, 8, rebuild=False) == "rebuilt"
    assert faster_product(wide, 8, rebuild=True) == "factored"


def test_how_says_what_a_call_would_do(with_trains: Callable[..., dict[str, Train]]) -> None:
    dense = nn.LSTM(512, 512)
    layer = replace_layer(dense, with_trains(dense, "mps", 16))
    assert layer.train().how(1, 35) == "rebuilt"
    with torch.no_grad():
        assert layer.eval().how(1, 35) == "factored"
        assert layer.how(1, 35) == "factored"
        layer.run = "rebuilt"
        assert layer.how(1, 35) == "rebuilt"
    kept = replace_layer(dense, {})
    assert kept.eval().how(1, 35) == "rebuilt"


def test_a_cell_in_training_does_not_rebuild(
    with_trains: Callable[..., dict[str, Train]],
) -> None:
    dense = nn.LSTMCell(512, 512)
    cell = replace_layer(dense, with_trains(dense, "mps", 16))
    assert cell.train().how(8) == "factored"
