"""The command `batch`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ttcompress.cli.arguments import Talk, flatten_options
from ttcompress.cli.engine import EngineOptions, Force, say_done

if TYPE_CHECKING:
    from ttcompress.results.batch import BatchResult

ManifestFile = Annotated[
    Path,
    typer.Argument(
        metavar="MANIFEST", help="YAML file of models, recipes and limits.", show_default=False
    ),
]
Baseline = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Earlier --json output; anything worse breaks a limit."),
]


@dataclass(frozen=True)
class ReportOptions:
    """Files with the results, for CI; an existing one is replaced."""

    junit: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write JUnit test results, replacing FILE.")
    ] = None
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a Markdown summary, replacing FILE.")
    ] = None
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write a page with the report of every job, replacing FILE."
        ),
    ] = None

    def check(self) -> None:
        """Refuse, before the work, an output that could not be written after it."""
        from ttcompress.reporting.html import require_plots
        from ttcompress.system.files import check_output

        if self.html is not None:
            require_plots("--html", "--markdown works without it.")
        for path in filter(None, (self.junit, self.markdown, self.html)):
            check_output(path, overwrite=True)

    def write(self, result: BatchResult) -> None:
        """Write the files that were asked for."""
        from ttcompress.reporting.batch import batch_markdown
        from ttcompress.reporting.junit import junit
        from ttcompress.system.files import written_whole

        for path, make in (
            (self.junit, junit),
            (self.markdown, batch_markdown),
            (self.html, _page),
        ):
            if path is not None:
                content = make(result)
                with written_whole(path, overwrite=True) as file:
                    file.write(content if isinstance(content, bytes) else content.encode("utf-8"))


def _page(result: BatchResult) -> str:
    from ttcompress.reporting.html import batch_page
    from ttcompress.results.document import read_report

    reports = [
        None if outcome.error else (read_report(path), path.stat().st_size)
        for outcome, path in zip(result.outcomes, result.paths, strict=True)
    ]
    return batch_page(result, reports)


@flatten_options
def batch(
    manifest: ManifestFile,
    where: EngineOptions,
    reports: ReportOptions,
    talk: Talk,
    force: Force = False,
    baseline: Baseline = None,
) -> None:
    """Compress many models under many recipes, in parallel.

    \b
    Example:
      ttcompress batch models.yaml -j 2 --junit junit.xml

    Jobs whose inputs have not changed are not run again. One that fails does not stop the others.
    The exit code is 5 if a job failed, else 4 if a limit is broken.
    """
    from ttcompress.cli import console
    from ttcompress.reporting.batch import batch_remarks, batch_table
    from ttcompress.workflows.batch import batch as run

    reports.check()
    engine = where.chosen(talk)
    with console.jobs_progress(talk) as (progress, say):
        result = run(
            manifest,
            engine=engine,
            force=force,
            baseline=baseline,
            on_outcome=partial(say_done, say),
            progress=progress,
        )
    reports.write(result)
    tables, remarks = [batch_table(result)], batch_remarks(result)
    console.result(talk, result, str(manifest), tables, remarks)
    if result.exit_code:
        raise typer.Exit(result.exit_code)
