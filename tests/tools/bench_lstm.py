"""How fast an LSTM of trains runs beside the dense one: prints a table, tests nothing.

    OMP_NUM_THREADS=1 python tests/tools/bench_lstm.py

In every row the layers take turns of a few calls each, so that a busy machine slows all of them
and none finds its weights pushed out of the cache by another; the times are medians.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from time import perf_counter

import torch
from torch import nn

from ttcompress.layers import LSTM, Run
from ttcompress.planning.formats import MpsLayout
from ttcompress.trains.formats import train_of

SECONDS = 4.0
TURN = 0.02


@dataclass(frozen=True)
class Row:
    """One comparison: input = hidden, both matrices at middle rank hidden / divisor."""

    hidden: int
    divisor: int
    batch: int
    steps: int
    wanted: float | None = None


ROWS = (
    Row(650, 16, 1, 35, wanted=8.0),
    Row(1024, 16, 1, 35, wanted=10.0),
    Row(1500, 16, 1, 35, wanted=10.0),
    Row(256, 16, 32, 35, wanted=1.0),
    Row(256, 4, 32, 35, wanted=1.0),
    Row(256, 1, 32, 35),
    Row(128, 4, 8, 35),
    Row(64, 4, 1, 35),
    Row(1024, 16, 1, 1),
)


def layers(row: Row) -> tuple[nn.LSTM, LSTM, LSTM]:
    """The dense layer, the same of trains factored, and that under "auto"."""
    dense = nn.LSTM(row.hidden, row.hidden).eval()
    rank, trains = row.hidden // row.divisor, {}
    for name in ("weight_ih_l0", "weight_hh_l0"):
        rows, columns = getattr(dense, name).shape
        cores = torch.randn(1, rows, rank) / rank, torch.randn(rank, columns, 1) / columns
        trains[name] = train_of(MpsLayout((rows,), (columns,)), cores)

    def of_trains(run: Run) -> LSTM:
        return LSTM.from_dense(dense, trains, run=run)

    return dense, of_trains("factored"), of_trains("auto")


def medians(calls: Sequence[Callable[[], object]]) -> list[float]:
    """Milliseconds of each call, all taking turns."""
    for call in calls:
        call()
    times: list[list[float]] = [[] for _ in calls]
    end = perf_counter() + SECONDS
    while perf_counter() < end or len(times[0]) < 9:
        for call, taken in zip(calls, times, strict=True):
            call()
            turn = perf_counter() + TURN
            while perf_counter() < turn:
                start = perf_counter()
                call()
                taken.append(1000 * (perf_counter() - start))
    return [median(taken) for taken in times]


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print("hidden  rank  batch  steps   dense  factored          auto                 wanted")
    for row in ROWS:
        dense, factored, auto = layers(row)
        x = torch.randn(row.steps, row.batch, row.hidden)
        with torch.no_grad():
            base, first, second = medians([partial(layer, x) for layer in (dense, factored, auto)])
            way = auto.how(row.batch, row.steps)
        print(
            f"{row.hidden:6}{row.hidden // row.divisor:6}{row.batch:7}{row.steps:7}{base:8.2f}"
            f"{first:10.2f} ({base / first:4.1f}x){second:8.2f} ({base / second:4.1f}x, {way:8})"
            + (f"  {row.wanted:.0f}x" if row.wanted else "")
        )


if __name__ == "__main__":
    main()
