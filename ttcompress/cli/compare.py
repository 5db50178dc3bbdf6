"""The command `compare`."""

from __future__ import annotations

from ttcompress.cli.arguments import Factors, Model, RecipeOptions, Talk, flattened, numbers


@flattened
def compare(model: Model, chosen: RecipeOptions, talk: Talk, factors: Factors = "4,8,16") -> None:
    """Set mps, mpo, svd, quantised and auto side by side at equal bytes: size, error, time, metric.

    svd is each weight by itself at the same factor, its factors in int8; quantised is few bits
    alone. With --calibrate or --finetune, mps, mpo and auto have it; add --task for the metric.

    \b
    Example:
      ttcompress compare charlm.pt --factors 4,8,16 --task charlm
    """
    from ttcompress.cli import console
    from ttcompress.reporting.comparison import comparison_remarks, comparison_tables
    from ttcompress.workflows.compare import compare as run

    recipe = chosen.in_force()
    with console.progress(talk) as progress:
        found = run(model, numbers(factors), recipe, progress=progress)
    title, tables = f"{model}: {chosen.title()}", comparison_tables(found)
    console.result(talk, found, title, tables, comparison_remarks(found))
