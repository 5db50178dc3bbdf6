"""The callback by which long work reports its progress; the command line draws bars from it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called before each unit of a stage, and once more when the stage is done.

    `stage` names the work ("spectra", "decompose"), `detail` the unit at hand ("" at the end).
    """

    def __call__(self, stage: str, done: int, total: int, detail: str = "") -> None:
        """Report that `done` of `total` units are done."""
        ...


def silent(stage: str, done: int, total: int, detail: str = "") -> None:
    """Report nothing: the default."""
