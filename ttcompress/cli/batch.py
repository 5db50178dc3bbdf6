"""`batch`: a manifest enters; many compressed models, a summary and one exit code leave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ttcompress.cli.arguments import MixedPrecision, Talk, flattened
from ttcompress.errors import RecipeError

if TYPE_CHECKING:
    from ttcompress.jobs.engine import Engine
    from ttcompress.results.batch import BatchResult
    from ttcompress.results.outcome import Outcome

ManifestFile = Annotated[
    Path,
    typer.Argument(metavar="MANIFEST", help="Models, recipes, limits: YAML.", show_default=False),
]
Force = Annotated[bool, typer.Option("--force", help="Run also what has not changed.")]
Baseline = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="An earlier --json; what became worse is a broken limit."),
]


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


@dataclass(frozen=True)
class ReportOptions:
    """Files that tell others what became of the jobs; one that exists is replaced."""

    junit: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write test results; replaces FILE.")
    ] = None
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the summary; replaces FILE.")
    ] = None

    def check(self) -> None:
        """Refuse, before the work, what cannot be written after it."""
        from ttcompress.system.files import check_output

        for path in filter(None, (self.junit, self.markdown)):
            check_output(path, overwrite=True)

    def write(self, result: BatchResult) -> None:
        """Write those that were asked for."""
        from ttcompress.reporting.batch import batch_markdown
        from ttcompress.reporting.junit import junit
        from ttcompress.system.files import written_whole

        if self.junit is not None:
            with written_whole(self.junit, overwrite=True) as file:
                file.write(junit(result))
        if self.markdown is not None:
            with written_whole(self.markdown, overwrite=True) as file:
                file.write(batch_markdown(result).encode())


@flattened
def batch(
    manifest: ManifestFile,
    where: EngineOptions,
    reports: ReportOptions,
    talk: Talk,
    force: Force = False,
    baseline: Baseline = None,
) -> None:
    """Compress many models under many recipes, in parallel; what has not changed is not run again.

    Exit code 5 says that a job failed, 4 that a limit broke; all other jobs are done all the same.

    \b
    Example:
      ttcompress batch models.yaml -j 2 --junit junit.xml
    """
    from ttcompress.cli import console
    from ttcompress.reporting.batch import batch_remarks, batch_table
    from ttcompress.workflows.batch import batch as run

    reports.check()
    engine = where.chosen()
    with console.jobs_progress(talk) as (progress, say):
        result = run(
            manifest,
            engine=engine,
            force=force,
            baseline=baseline,
            told=teller(say),
            progress=progress,
        )
    reports.write(result)
    if talk.json:
        console.document(result.as_json())
    else:
        console.show(str(manifest), [batch_table(result)], batch_remarks(result))
    if result.exit_code:
        raise typer.Exit(result.exit_code)


def teller(say: Callable[[str], None]) -> Callable[[Outcome], None]:
    """A line for each job as it ends."""

    def tell(outcome: Outcome) -> None:
        if not outcome.cached:
            say(f"{outcome.name}: {outcome.status}, {outcome.seconds:.1f} s")

    return tell
