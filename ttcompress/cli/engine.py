"""Options of the commands that run many jobs, and the line that each job prints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ttcompress.cli import headings
from ttcompress.cli.arguments import MixedPrecision, Talk
from ttcompress.errors import RecipeError

if TYPE_CHECKING:
    from ttcompress.jobs.engine import Engine
    from ttcompress.results.outcome import Outcome

Force = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Rerun jobs whose inputs have not changed.",
        rich_help_panel=headings.JOBS,
    ),
]


@dataclass(frozen=True)
class EngineOptions:
    """Where jobs run, and how they train."""

    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            "-j",
            min=1,
            metavar="N",
            help="Jobs to run at once.  [one per core]",
            rich_help_panel=headings.JOBS,
        ),
    ] = None
    engine: Annotated[
        str,
        typer.Option(
            metavar="loky|dask",
            help="Run in local processes, or on a Dask cluster.",
            rich_help_panel=headings.JOBS,
        ),
    ] = "loky"
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Dask scheduler, such as tcp://host:8786.  [one started here]",
            rich_help_panel=headings.JOBS,
        ),
    ] = None
    mixed_precision: MixedPrecision = "no"

    def chosen(self, talk: Talk) -> Engine:
        """The engine that the options describe; says where they ask for more than there is.

        Raises:
            RecipeError: a scheduler was given, but the engine is not Dask.
        """
        from ttcompress.jobs.engine import Engine

        if self.engine not in ("loky", "dask"):
            raise typer.BadParameter(f"--engine: expected loky or dask, got {self.engine!r}.")
        if self.scheduler is not None and self.engine != "dask":
            raise RecipeError("--scheduler only applies to Dask; add --engine dask.")
        if self.jobs is not None and self.scheduler is None:  # a cluster has cores of its own
            self._tell_of_threads(self.jobs, talk)
        name: Literal["loky", "dask"] = "dask" if self.engine == "dask" else "loky"
        return Engine(name, self.jobs, self.scheduler, self.mixed_precision)

    def _tell_of_threads(self, jobs: int, talk: Talk) -> None:
        """Each job has a thread or more: the cores are shared among jobs that run at once."""
        from ttcompress.cli import console
        from ttcompress.system.threads import remark_on_threads

        if remark := remark_on_threads(jobs, f"-j {jobs}"):
            console.say(remark, talk)


def say_done(say: Callable[[str], None], outcome: Outcome) -> None:
    """Say that a job has ended, unless nothing was done for it."""
    if not outcome.cached:
        say(f"{outcome.name}: {outcome.status}, {outcome.seconds:.1f} s")
