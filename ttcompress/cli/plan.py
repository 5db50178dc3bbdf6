"""The command `plan`."""

from __future__ import annotations

from ttcompress.cli.arguments import DecomposeOptions, Model, Talk, flatten_options


@flatten_options
def plan(model: Model, chosen: DecomposeOptions, talk: Talk) -> None:
    """Show what decompose would do, without writing anything.

    \b
    Example:
      ttcompress plan charlm.pt --format mpo --factor 8
    """
    from ttcompress.cli import console
    from ttcompress.reporting.report import plan_remarks, totals_table, weights_table
    from ttcompress.results.from_plan import plan_report
    from ttcompress.workflows.plan import plan as make_plan

    recipe = chosen.resolve()
    with console.progress(talk) as progress:
        checkpoint, made = make_plan(model.path, recipe, progress=progress)
    report = plan_report(checkpoint, recipe, made)
    tables = [weights_table(report), totals_table(report.totals)]
    title = f"{model}: {chosen.title()}"
    console.result(talk, report, title, tables, plan_remarks(report))
