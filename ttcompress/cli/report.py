"""The command `report`."""

from __future__ import annotations

import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from ttcompress.cli.arguments import Overwrite, Talk, flatten_options
from ttcompress.cli.model_file import ModelFile
from ttcompress.errors import InputError, TTCompressError

if TYPE_CHECKING:
    from ttcompress.model.report import Report

Artifacts = Annotated[
    list[ModelFile] | None,
    typer.Argument(
        parser=ModelFile, metavar="FILE", help="Compressed models.  [all in this folder]"
    ),
]
Notation = Annotated[
    str, typer.Option("--as", metavar="table|json|markdown|html", help="How to write the report.")
]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="File to write.  [stdout]")]
Timed = Annotated[
    bool,
    typer.Option("--bench", help="Also time the model here, as ttcompress bench does."),
]

NOTATIONS = ("table", "json", "markdown", "html")


@flatten_options
def report(
    files: Artifacts = None,
    notation: Notation = "table",
    output: Output = None,
    overwrite: Overwrite = False,
    timed: Timed = False,
    *,
    talk: Talk,
) -> None:
    """Show what was done to a model, from the compressed file alone.

    \b
    Example:
      ttcompress report charlm.auto.safetensors --as html -o charlm.html

    Several files are shown side by side; without FILE, all in this folder.
    """
    from ttcompress.cli import console
    from ttcompress.system.files import check_output, written_whole

    if notation not in NOTATIONS:
        raise typer.BadParameter(f"--as: expected one of {', '.join(NOTATIONS)}, got {notation!r}.")
    if talk.json and notation not in ("table", "json"):
        raise typer.BadParameter(f"use either --json or --as {notation}, not both.")
    if output is not None:
        check_output(output, overwrite)
    found = _load_reports(files, talk)
    if timed:
        found = [(file, _time(file.path, one, talk)) for file, one in found]
    alone, text = bool(files) and len(found) == 1, StringIO()
    _write(found, "json" if talk.json else notation, alone, sys.stdout if output is None else text)
    if output is not None:
        with written_whole(output, overwrite) as file:
            file.write(text.getvalue().encode("utf-8"))
        console.say(f"wrote {output}", talk)


def _write(found: list[tuple[ModelFile, Report]], notation: str, alone: bool, file: TextIO) -> None:
    """Write reports to a file; `alone` where a single FILE was given."""
    from ttcompress.cli import console
    from ttcompress.reporting.bench import bench_remarks
    from ttcompress.reporting.html import report_page
    from ttcompress.reporting.markdown import report_markdown
    from ttcompress.reporting.report import files_table, report_summary

    sizes = [(str(file), one, file.path.stat().st_size) for file, one in found]
    if notation == "html":
        console.text(report_page(sizes), file)
    elif notation == "markdown":
        console.text("\n".join(report_markdown(*entry) for entry in sizes), file)
    elif notation == "json":
        several = [{"file": name, **one.as_json()} for name, one, _ in sizes]
        console.document(found[0][1].as_json() if alone else {"reports": several}, file)
    elif alone:
        name, one, size = sizes[0]
        conclusion, tables, remarks = report_summary(one, size, file=name)
        console.show(f"{name}\n{conclusion}", tables, remarks, file=file)
    else:
        lines = [f"{name}: {line}" for name, one, _ in sizes for line in bench_remarks(one.bench)]
        console.show("", [files_table(sizes)], lines, file=file)


def _load_reports(files: list[ModelFile] | None, talk: Talk) -> list[tuple[ModelFile, Report]]:
    """The reports of the files given, or of the artifacts in this folder."""
    from ttcompress.cli import console
    from ttcompress.results.document import read_report

    if files:
        return [(file, read_report(file.path)) for file in files]
    found = []
    for path in sorted(filter(Path.is_file, Path().glob("*.safetensors"))):
        try:
            found.append((ModelFile(str(path)), read_report(path)))
        except TTCompressError as error:  # not an artifact, damaged, unreadable, or gone by now
            console.say(f"skipped: {error}", talk)
    if not found:
        raise InputError(f"{Path.cwd()}: there is no compressed model in this folder. Name a FILE.")
    return found


def _time(path: Path, report: Report, talk: Talk) -> Report:
    """The report with timings of this machine added."""
    from ttcompress.cli import console
    from ttcompress.workflows.bench import bench

    with console.progress(talk) as progress:
        return replace(report, bench=bench(path, progress=progress).as_json())
