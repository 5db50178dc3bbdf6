"""Computes a series to forecast: eight coupled oscillators of which four are seen, in three splits.

Each is a van der Pol oscillator, pushed by noise and pulled by its two neighbours in a ring:

    x'' = 1.5 (1 - x^2) x' - w^2 x + (left - x) + (right - x) + noise

The positions x of every second one are seen. They are the same bit for bit on every machine: the
four arithmetic operations and a square root round alike everywhere, and the numbers of
`random.random` are the same in every Python.
"""

from __future__ import annotations

from functools import cache
from math import sqrt
from random import Random

from ttcompress.samples.corpus import SPLITS, Split

NAMES = ("first", "second", "third", "fourth")
FREQUENCIES = (1.0, 1.9, 1.23, 2.2, 1.46, 0.8, 1.71, 2.6)  # w
SEEN = slice(0, None, 2)
DAMPING = 1.5
NOISE = 0.1  # deviation of the push over one unit of time

STEP = 0.03  # of the integration, by the semi-implicit Euler method
STEPS_PER_ROW = 8
SETTLING = 100  # rows until the oscillators are in full swing

WINDOW, HORIZON = 64, 16  # rows that the forecaster sample sees, and forecasts

ROWS: dict[Split, int] = {"train": 40_000, "valid": 2_500, "test": 2_500}

Row = tuple[float, ...]  # the position of each that is seen


def load(split: Split) -> list[Row]:
    """The rows of `split`: parts of one series, in the order train, valid, test."""
    before = sum(ROWS[one] for one in SPLITS[: SPLITS.index(split)])
    return list(_series()[before : before + ROWS[split]])


@cache
def _series() -> tuple[Row, ...]:
    """The whole series: 2 s of computing."""
    random = Random(0)
    count = len(FREQUENCIES)
    push = NOISE * sqrt(12 * STEP)  # 12: the variance of `random` is a twelfth
    x, v = ([random.random() - 0.5 for _ in range(count)] for _ in range(2))
    rows = []
    for _ in range(SETTLING + sum(ROWS.values())):
        for _ in range(STEPS_PER_ROW):
            for i, w in enumerate(FREQUENCIES):
                pull = x[i - 1] + x[(i + 1) % count] - 2 * x[i]
                force = DAMPING * (1 - x[i] * x[i]) * v[i] - w * w * x[i] + pull
                v[i] += STEP * force + push * (random.random() - 0.5)
            for i in range(count):
                x[i] += STEP * v[i]
        rows.append(tuple(x[SEEN]))
    return tuple(rows[SETTLING:])
