"""The command `batch`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ttcompress.cli.arguments import Talk, flattened
from ttcompress.cli.engine import EngineOptions, Force, say_done

if TYPE_CHECKING:
    from ttcompress.results.batch import BatchResult

ManifestFile = Annotated[
    Path,
    typer.Argument(metavar="MANIFEST", help="Models, recipes, limits: YAML.", show_default=False),
]
Baseline = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="An earlier --json; what became worse is a broken limit."),
]


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
            told=partial(say_done, say),
            progress=progress,
        )
    reports.write(result)
    tables, remarks = [batch_table(result)], batch_remarks(result)
    console.result(talk, result, str(manifest), tables, remarks)
    if result.exit_code:
        raise typer.Exit(result.exit_code)
