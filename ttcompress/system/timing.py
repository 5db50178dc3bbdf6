"""Times several calls in turns, so that the machine is equally busy for all of them: `timings`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import quantiles
from time import perf_counter, thread_time
from typing import Literal

TURN = 0.02
"""Seconds for which one call is repeated before the next: its weights stay in the cache."""

LEAST = 9
"""Fewest times that each call is measured, however long it takes."""


Clock = Literal["processor", "wall"]
"""Processor time of the calling thread, or elapsed time."""

CLOCKS: dict[Clock, Callable[[], float]] = {"processor": thread_time, "wall": perf_counter}


@dataclass(frozen=True)
class Timing:
    """The median and the quartiles of a call's times, in milliseconds."""

    median: float
    low: float
    high: float
    calls: int


def clock_for(threads: int) -> Clock:
    """Processor time for one thread: a busy machine interrupts long calls more than short ones.

    Several threads work side by side, and Windows counts a thread's time too coarsely.
    """
    return "processor" if threads == 1 and os.name == "posix" else "wall"


def timings(
    calls: Mapping[str, Callable[[], object]], seconds: float, clock: Clock
) -> dict[str, Timing]:
    """Time all calls in turns, for `seconds` in all and at least `LEAST` times each."""
    now = CLOCKS[clock]
    for call in calls.values():
        call()  # a first call may build caches
    taken: dict[str, list[float]] = {name: [] for name in calls}
    end = now() + seconds
    while now() < end or min(map(len, taken.values())) < LEAST:
        for name, call in calls.items():
            call()  # the first of a turn finds the other call's weights in the cache
            turn = now() + TURN
            while True:
                start = now()
                call()
                stop = now()
                taken[name].append(1000 * (stop - start))
                if stop > turn:
                    break
    return {name: _timing(times) for name, times in taken.items()}


def _timing(times: list[float]) -> Timing:
    low, median, high = quantiles(times, n=4)
    return Timing(median, low, high, len(times))
