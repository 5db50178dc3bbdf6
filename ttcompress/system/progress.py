"""How long work tells where it is: a callback that the command line turns into bars."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called before each unit of a stage, and once more when the stage is done.

    `stage` names the work ("spectra", "decompose"), `detail` the unit at hand ("" at the end).
    """

    def __call__(self, stage: str, done: int, total: int, detail: str = "") -> None:
        """Tell that `done` of `total` units are done."""
        ...


def silent(stage: str, done: int, total: int, detail: str = "") -> None:
    """The default: say nothing."""
