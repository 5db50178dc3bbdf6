"""`report`, `verify` and `restore`: what can be asked of a compressed file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ttcompress.cli.decompose import show_report
from ttcompress.cli.options import Artifact, Key, Overwrite, Talk, flattened
from ttcompress.errors import ArtifactError, InputError, MissingExtraError

if TYPE_CHECKING:
    from ttcompress.report.model import Report

Artifacts = Annotated[
    list[Path] | None,
    typer.Argument(metavar="FILE", help="Compressed models.  [those in this folder]"),
]
Notation = Annotated[
    str, typer.Option("--as", metavar="table|json|markdown", help="How to write the report.")
]
Timed = Annotated[
    bool,
    typer.Option("--bench", help="Time it here too, as `bench` does; the file stays as it is."),
]
Against = Annotated[
    Path, typer.Option("--against", metavar="MODEL", help="The checkpoint it was made from.")
]
Dense = Annotated[Path, typer.Option("--output", "-o", help="The dense checkpoint to write.")]

NOTATIONS = ("table", "json", "markdown")
DIFFERENT = 1
"""The exit code where an artifact is not what its report says."""


@flattened
def report(
    files: Artifacts = None, notation: Notation = "table", timed: Timed = False, *, talk: Talk
) -> None:
    """Show what was done to a model, from the compressed file alone.

    Several files, or none (those in this folder), are set side by side.

    \b
    Example:
      ttcompress report charlm.mps.safetensors --as markdown > charlm.md
    """
    from ttcompress.cli import console
    from ttcompress.report.bench import bench_remarks
    from ttcompress.report.markdown import report_markdown
    from ttcompress.report.tables import comparison_table

    talk, notation = _agreed(talk, notation)
    found = _load_reports(files, talk)
    if timed:
        found = [(path, _timed(path, one, talk)) for path, one in found]
    sizes = [(str(path), one, path.stat().st_size) for path, one in found]
    if notation == "markdown":
        console.text("\n".join(report_markdown(*entry) for entry in sizes))
    elif files and len(files) == 1:
        show_report(sizes[0][0], *found[0], talk)
    elif talk.json:
        console.document({"reports": [{"file": name, **one.as_json()} for name, one, _ in sizes]})
    else:
        lines = [f"{name}: {line}" for name, one, _ in sizes for line in bench_remarks(one.bench)]
        console.show("", [comparison_table(sizes)], lines)


@flattened
def verify(file: Artifact, against: Against, talk: Talk, key: Key = None) -> None:
    """Compute every error of FILE again, from it and from the model it was made from.

    Exit code 0 says that the report is right and that every kept tensor is the model's own.

    \b
    Example:
      ttcompress verify charlm.mps.safetensors --against charlm.pt
    """
    from ttcompress.cli import console
    from ttcompress.report.verification import verification_remarks, verification_table
    from ttcompress.verify import verify as check

    with console.progress(talk) as progress:
        found = check(file, against, key=key, progress=progress)
    if talk.json:
        console.document(found.as_json())
    else:
        console.show(str(file), [verification_table(found)], verification_remarks(found))
    if not found.agrees:
        raise typer.Exit(DIFFERENT)


@flattened
def restore(file: Artifact, output: Dense, talk: Talk, overwrite: Overwrite = False) -> None:
    """Write FILE as an ordinary state dict for the original code.

    \b
    Example:
      ttcompress restore charlm.mps.safetensors -o dense.pt
    """
    from ttcompress.cli import console
    from ttcompress.restore import restore as write_dense

    write_dense(file, output, overwrite)
    if talk.json:
        console.document({"file": str(output), "bytes": output.stat().st_size})
    console.say(f"wrote {output}", talk)


def _agreed(talk: Talk, notation: str) -> tuple[Talk, str]:
    """`--json` and `--as json` are one."""
    if notation == "html":
        raise MissingExtraError(
            "--as html: HTML reports are not in this version. Use --as markdown."
        )
    if notation not in NOTATIONS:
        raise typer.BadParameter(f"{notation!r} is none of {', '.join(NOTATIONS)}.")
    if talk.json or notation == "json":
        return replace(talk, json=True), "json"
    return talk, notation


def _load_reports(files: list[Path] | None, talk: Talk) -> list[tuple[Path, Report]]:
    """The reports of the files given, or of the artifacts in this folder."""
    from ttcompress.artifact import load

    if files:
        return [(path, load(path).report) for path in files]
    found = []
    for path in sorted(Path().glob("*.safetensors")):
        try:
            found.append((path, load(path).report))
        except ArtifactError as error:
            _say_left_out(error, talk)
    if not found:
        raise InputError(f"{Path.cwd()}: no compressed model in this folder. Give a FILE.")
    return found


def _timed(path: Path, report: Report, talk: Talk) -> Report:
    """The report with what `bench` finds on this machine."""
    from ttcompress.bench import bench
    from ttcompress.cli import console

    with console.progress(talk) as progress:
        return replace(report, bench=bench(path, progress=progress).as_json())


def _say_left_out(error: ArtifactError, talk: Talk) -> None:
    from ttcompress.cli import console

    console.say(f"left out: {error}", talk)
