"""The options of the commands that run many jobs, and the line they say for each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ttcompress.cli.arguments import MixedPrecision
from ttcompress.errors import RecipeError

if TYPE_CHECKING:
    from ttcompress.jobs.engine import Engine
    from ttcompress.results.outcome import Outcome

Force = Annotated[bool, typer.Option("--force", help="Run also what has not changed.")]


@dataclass(frozen=True)
class EngineOptions:
    """Where jobs run, and how they train."""

    jobs: Annotated[
        int | None,
        typer.Option("--jobs", "-j", min=1, metavar="N", help="Jobs at once.  [one for each core]"),
    ] = None
    engine: Annotated[
        str, typer.Option(metavar="loky|dask", help="Processes here, or a Dask cluster.")
    ] = "loky"
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="A Dask cluster's, tcp://host:8786.  [its own]"),
    ] = None
    mixed_precision: MixedPrecision = "no"

    def chosen(self) -> Engine:
        """The engine that the options name.

        Raises:
            RecipeError: a scheduler without Dask.
        """
        from ttcompress.jobs.engine import Engine

        if self.engine not in ("loky", "dask"):
            raise typer.BadParameter(f"--engine: {self.engine!r} is none of loky, dask.")
        if self.scheduler is not None and self.engine != "dask":
            raise RecipeError("--scheduler: belongs to Dask. Add --engine dask.")
        name: Literal["loky", "dask"] = "dask" if self.engine == "dask" else "loky"
        return Engine(name, self.jobs, self.scheduler, self.mixed_precision)


def say_done(say: Callable[[str], None], outcome: Outcome) -> None:
    """Say that a job has ended, unless nothing was done for it."""
    if not outcome.cached:
        say(f"{outcome.name}: {outcome.status}, {outcome.seconds:.1f} s")
