"""`evaluate` and `finetune`: what needs a task."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ttcompress.cli.arguments import Artifact, Key, Overwrite, Talk, TuningOptions, flattened
from ttcompress.cli.decompose import answer_for_limits, show_report
from ttcompress.errors import RecipeError
from ttcompress.system.launch import is_first

if TYPE_CHECKING:
    from ttcompress.recipe import Recipe

AnyModel = Annotated[
    Path, typer.Argument(metavar="FILE", help="A checkpoint, or a compressed model.")
]
TaskName = Annotated[
    str | None,
    typer.Option("--task", help="A built-in task, or file.py:Name.", metavar="TASK"),
]
WithTask = Annotated[
    str | None,
    typer.Option("--recipe", "-r", help="A recipe whose task and finetune blocks count."),
]

Original = Annotated[
    Path | None,
    typer.Option(
        metavar="MODEL", help="What it was made from: teacher and measure.  [found beside FILE]"
    ),
]


@flattened
def evaluate(
    file: AnyModel,
    talk: Talk,
    task: TaskName = None,
    recipe: WithTask = None,
    key: Key = None,
) -> None:
    """Measure a dense or a compressed model on a task.

    \b
    Example:
      ttcompress evaluate charlm.mps.safetensors --task charlm
    """
    from ttcompress.cli import console
    from ttcompress.workflows.evaluate import evaluate as measure

    chosen = _with_task(recipe, task)
    assert chosen.task is not None
    with console.progress(talk) as progress:
        found = measure(
            file, chosen.task.name, dict(chosen.task.options), key=key, progress=progress
        )
    if talk.json:
        console.document({"task": chosen.task.name, "metrics": found})
    else:
        console.show(str(file), [], [f"{name}: {value:.6g}" for name, value in found.items()])


@flattened
def finetune(
    file: Artifact,
    talk: Talk,
    tuning: TuningOptions,
    output: Annotated[Path, typer.Option("--output", "-o", help="The tuned artifact.")],
    task: TaskName = None,
    recipe: WithTask = None,
    original: Original = None,
    overwrite: Overwrite = False,
) -> None:
    """Train a compressed model on a task to win accuracy back; it never becomes worse.

    \b
    Example:
      ttcompress finetune small.safetensors --task charlm --original charlm.pt -o tuned.safetensors
    """
    from ttcompress.cli import console
    from ttcompress.system.files import check_output
    from ttcompress.workflows.finetune import tune_artifact
    from ttcompress.workflows.original import find_original

    check_output(output, overwrite)
    chosen = _with_task(recipe, task)
    with console.progress(talk) as progress:
        conditions = tuning.conditions(output, overwrite, console.watching(progress, talk))
        if original is None and (original := find_original(file)) is not None:
            console.say(f"the original is {original}, by its hash", talk)
        tuned = tune_artifact(
            file, chosen, original=original, conditions=conditions, progress=progress
        )
    if not is_first():
        return
    tuned.save(output, overwrite)
    show_report(str(file), output, tuned.report, talk)
    console.say(f"wrote {output}", talk)
    answer_for_limits(output, tuned.report, talk)


def _with_task(recipe: str | None, task: str | None) -> Recipe:
    """The recipe, or the default one, with a task in it.

    Raises:
        RecipeError: neither names a task.
    """
    from ttcompress.recipe import as_recipe, with_options

    chosen = with_options(as_recipe(recipe), task=task)
    if chosen.task is None:
        raise RecipeError("no task: nothing says what to measure. Add --task, as --task charlm.")
    return chosen
