"""Which of the two ways to run is faster: sizes enter, "factored" or "rebuilt" leaves."""

from __future__ import annotations

from typing import Literal, get_args

Way = Literal["factored", "rebuilt"]
Run = Literal["auto", "factored", "rebuilt"]


def checked_run(run: Run) -> Run:
    """The argument itself.

    Raises:
        ValueError: it is none of the three.
    """
    if run not in get_args(Run):
        raise ValueError(f"run is {run!r}; it must be one of {', '.join(get_args(Run))}")
    return run
