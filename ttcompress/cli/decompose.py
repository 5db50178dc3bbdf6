"""`plan` and `decompose`: a model and a recipe enter; a plan, or an artifact, leaves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ttcompress.cli.arguments import (
    DecomposeOptions,
    Model,
    Overwrite,
    Talk,
    TuningOptions,
    flattened,
)
from ttcompress.errors import BROKEN_LIMIT, OutputPathError
from ttcompress.system.launch import is_first

if TYPE_CHECKING:
    from ttcompress.model.report import Asked, Provenance, Report

Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="The artifact.  [MODEL's stem + .mps.safetensors, here]"),
]


@flattened
def plan(model: Model, chosen: DecomposeOptions, talk: Talk) -> None:
    """Say what decompose would do: sizes, ranks, multiply-adds. Nothing is written.

    \b
    Example:
      ttcompress plan charlm.pt --format mpo --factor 8
    """
    from ttcompress.cli import console
    from ttcompress.recipe import effective
    from ttcompress.reporting.report import plan_remarks, totals_table, weights_table
    from ttcompress.results.plan import plan_report
    from ttcompress.workflows.plan import plan as make_plan

    recipe = chosen.in_force()
    with console.progress(talk) as progress:
        checkpoint, made = make_plan(model, recipe, progress=progress)
    source: Provenance = {"sha256": checkpoint.sha256, "bytes": checkpoint.bytes}
    asked: Asked = {"text": recipe.text, "effective": effective(recipe)}
    report = plan_report(source, asked, made, checkpoint.notes)
    if talk.json:
        console.document(report.as_json())
    else:
        tables = [weights_table(report), totals_table(report.totals)]
        console.show(f"{model}: {chosen.title()}", tables, plan_remarks(report))


@flattened
def decompose(
    model: Model,
    chosen: DecomposeOptions,
    tuning: TuningOptions,
    talk: Talk,
    output: Output = None,
    overwrite: Overwrite = False,
) -> None:
    """Compress MODEL as a recipe says, and write one file that explains itself.

    \b
    Example:
      ttcompress decompose charlm.pt --format mps --factor 8 -o small.safetensors
    """
    from ttcompress.cli import console
    from ttcompress.training.finetune import CONDITIONS
    from ttcompress.workflows.compress import compress

    recipe = chosen.in_force()
    if recipe.finetune is None:
        tuning.refuse()
    path = output or Path(default_name(model, recipe.format))
    _check_output(path, model, overwrite)
    with console.progress(talk) as progress:
        conditions = CONDITIONS
        if recipe.finetune is not None:
            conditions = tuning.conditions(path, overwrite, console.watching(progress, talk))
        trials = path.with_name(f"{path.name}.trials.json")
        compressed = compress(
            model, recipe, conditions=conditions, trials=trials, progress=progress
        )
    if not is_first():
        return
    compressed.save(path, overwrite)
    show_report(f"{model}: {chosen.title()}", path, compressed.report, talk)
    console.say(f"wrote {path}", talk)
    answer_for_limits(path, compressed.report, talk)


def show_report(title: str, path: Path, report: Report, talk: Talk) -> None:
    """One report as JSON or as tables."""
    from ttcompress.cli import console
    from ttcompress.reporting.bench import bench_remarks, bench_tables
    from ttcompress.reporting.report import report_remarks, totals_table, weights_table

    if talk.json:
        console.document(report.as_json())
    else:
        tables = [weights_table(report), totals_table(report.totals), *bench_tables(report.bench)]
        lines = (*report_remarks(report, path.stat().st_size), *bench_remarks(report.bench))
        console.show(title, tables, lines)


def default_name(model: Path, format: str) -> str:
    """The artifact's name where none is given.

    >>> default_name(Path("runs/charlm.pt"), "mps")
    'charlm.mps.safetensors'
    >>> default_name(Path("model.safetensors.index.json"), "auto")
    'model.auto.safetensors'
    """
    from ttcompress.system.files import model_stem

    return f"{model_stem(model)}.{format}.safetensors"


def _check_output(path: Path, model: Path, overwrite: bool) -> None:
    """Before the work, which can be long."""
    from ttcompress.system.files import check_output

    check_output(path, overwrite)
    if path.exists() and model.exists() and path.samefile(model):
        raise OutputPathError(f"{path}: is the model itself. Use another -o.")


def answer_for_limits(path: Path, report: Report, talk: Talk) -> None:
    """Say which limits are broken, and end with their exit code."""
    from ttcompress.cli import console
    from ttcompress.workflows.limits import broken

    failed = broken(report)
    for limit in failed:
        asked, found = limit["limit"], limit["value"]
        console.say(f"limit broken: {limit['name']} {asked:,.12g} asked, {found:,.12g} found", talk)
    if failed:
        console.say(f"{path} is marked failed", talk)
        raise typer.Exit(BROKEN_LIMIT)
