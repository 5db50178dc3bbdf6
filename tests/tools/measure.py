"""Measures a command: how long it ran, its processor time and its peak memory."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Measured:
    """Seconds on the clock, seconds of processor time, and the most resident bytes.

    The time is that of the process and of those it waited for; the memory that of the largest.
    """

    seconds: float
    processor: float
    peak: int


def ttcompress(*arguments: str, folder: Path, accepted: Sequence[int] = (0,)) -> Measured:
    """Run the command line as a process of its own, silently, in a folder."""
    started = time.perf_counter()
    process = os.fork()
    if process == 0:
        os.chdir(folder)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.execv(sys.executable, [sys.executable, "-m", "ttcompress", *arguments])
    _, status, usage = os.wait4(process, 0)
    seconds, code = time.perf_counter() - started, os.waitstatus_to_exitcode(status)
    assert code in accepted, f"{arguments}: exit {code}"
    return Measured(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)
