"""Shares the cores: the number of threads that torch uses, and work done side by side."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from ttcompress.system.late import torch

Given = TypeVar("Given")
Found = TypeVar("Found")

BY_ENVIRONMENT = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""What torch takes its number of threads from."""


@contextmanager
def torch_threads(count: int) -> Iterator[int]:
    """Let torch use `count` threads within the block, which is told how many it used before."""
    before: int = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield before
    finally:
        torch.set_num_threads(before)


def side_by_side(
    work: Callable[[Given], Found],
    items: Sequence[Given],
    before: Callable[[int, Given], None] = lambda done, item: None,
) -> Iterator[Found]:
    """Do independent work on each item, as many at once as torch has threads; results in order.

    Each is done by one thread, so that results do not depend on how many there are. Two threads
    inside LAPACK's `eigh` take up to 20 times as long as one where a core is busy. After an error
    or an interrupt only what has begun is finished.

    Args:
        work: what is done.
        items: what it is done on.
        before: called before a result is waited for, with how many there are, and its item.
    """
    with torch_threads(1) as threads:
        if (workers := min(threads, len(items))) < 2:
            for done, item in enumerate(items):
                before(done, item)
                yield work(item)
            return
        pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
        begun = deque(pool.submit(work, item) for item in items[:workers])
        try:
            for done, item in enumerate(items):
                before(done, item)
                begun += [pool.submit(work, later) for later in items[done + workers :][:1]]
                yield begun.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


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
