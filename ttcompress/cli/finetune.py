"""The command `finetune`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ttcompress.cli.arguments import Artifact, Overwrite, Talk, TuningOptions, flatten_options
from ttcompress.cli.artifact import Delivery, state_of
from ttcompress.cli.model_file import ModelFile
from ttcompress.cli.task import TaskName, WithTask, recipe_with_task

Output = Annotated[Path, typer.Option("--output", "-o", help="File to write.")]
Original = Annotated[
    ModelFile | None,
    typer.Option(
        parser=ModelFile,
        metavar="MODEL",
        help="Checkpoint it was made from, to learn from.  [found beside FILE]",
    ),
]


@flatten_options
def finetune(
    file: Artifact,
    talk: Talk,
    tuning: TuningOptions,
    output: Output,
    task: TaskName = None,
    recipe: WithTask = None,
    original: Original = None,
    overwrite: Overwrite = False,
) -> None:
    """Train a compressed model on a task to regain accuracy.

    \b
    Example:
      ttcompress finetune small.safetensors --task charlm --original charlm.pt -o tuned.safetensors

    The best state of the run is kept, so that the metric never becomes worse.
    """
    from ttcompress.cli import console
    from ttcompress.system.files import check_output
    from ttcompress.workflows.finetune import finetune as tune
    from ttcompress.workflows.original import find_original

    check_output(output, overwrite)
    chosen = recipe_with_task(recipe, task)
    delivery = Delivery(output, overwrite, talk)
    with delivery.explaining(), console.progress(talk) as progress:
        watch = console.watching(progress, talk)
        conditions = tuning.conditions(state_of(output), overwrite, watch)
        teacher = find_original(file.path) if original is None else original.path
        if original is None and teacher is not None:
            console.say(f"found the original by its hash: {teacher}", talk)
        if teacher is None:
            console.say("no original, so nothing is learned from it: see --original", talk)
        tuned = tune(
            file.path,
            chosen,
            original=teacher,
            conditions=replace(conditions, keep=delivery.keep),
            progress=progress,
        )
    delivery.show(tuned, str(file), original)
