"""Calls enter; how long each takes, measured in turns so that all meet the same machine, leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import quantiles
from time import perf_counter

TURN = 0.02
"""Seconds that one call is repeated before the next has its turn: its weights stay in the cache."""

LEAST = 9
"""Times of each call, however long it takes."""


@dataclass(frozen=True)
class Timing:
    """Milliseconds: the median and the quartiles around it."""

    median: float
    low: float
    high: float
    calls: int


def timings(
    calls: Mapping[str, Callable[[], object]],
    seconds: float,
    clock: Callable[[], float] = perf_counter,
) -> dict[str, Timing]:
    """Time all calls, taking turns, for so many seconds in all or until each has `LEAST` times.

    A busy machine interrupts long calls more often than short ones; `clock=time.thread_time` counts
    what this thread worked, whatever else ran.
    """
    for call in calls.values():
        call()  # what is made once is made before
    taken: dict[str, list[float]] = {name: [] for name in calls}
    end = clock() + seconds
    while clock() < end or min(map(len, taken.values())) < LEAST:
        for name, call in calls.items():
            call()  # the first of a turn finds another's weights in the cache
            turn = clock() + TURN
            while True:
                start = clock()
                call()
                stop = clock()
                taken[name].append(1000 * (stop - start))
                if stop > turn:
                    break
    return {name: _timing(times) for name, times in taken.items()}


def _timing(times: list[float]) -> Timing:
    low, median, high = quantiles(times, n=4)
    return Timing(median, low, high, len(times))
