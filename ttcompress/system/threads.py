"""Sets the number of threads that torch uses, and says where more are asked for than help."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from ttcompress.system.late import torch

BY_ENVIRONMENT = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""What torch takes its number of threads from."""


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch use `count` threads within the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def count_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not everywhere
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def remark_on_threads(asked: int, by: str) -> str:
    """A line, if more threads are asked for than there are cores; otherwise nothing.

    >>> remark_on_threads(1, "--threads")
    ''
    """
    there = count_cores()
    if asked <= there:
        return ""
    cores = "1 core" if there == 1 else f"{there} cores"
    return (
        f"{by} asks for {asked:,} threads, but this process has {cores}: threads that share a core "
        f"slow each other down. Ask for {there} at most."
    )


def remark_on_environment() -> str:
    """The same for what the environment asks of torch."""
    asked = {name: os.environ.get(name, "") for name in BY_ENVIRONMENT}
    found = (remark_on_threads(int(n), name) for name, n in asked.items() if n.isdecimal())
    return next(filter(None, found), "")
