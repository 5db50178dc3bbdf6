"""The command `evaluate`."""

from __future__ import annotations

from typing import Annotated

import typer

from ttcompress.cli.arguments import Key, Talk, flatten_options
from ttcompress.cli.model_file import ModelFile
from ttcompress.cli.task import TaskName, WithTask, recipe_with_task

AnyModel = Annotated[
    ModelFile,
    typer.Argument(
        parser=ModelFile,
        metavar="FILE",
        help="Checkpoint or compressed model: a file, or hf://user/name on the hub.",
    ),
]

Native = Annotated[
    str | None,
    typer.Option(
        "--native",
        metavar="none|int8|int4",
        help="Run it as the C code that export writes with this --quantize.",
    ),
]


@flatten_options
def evaluate(
    file: AnyModel,
    talk: Talk,
    task: TaskName = None,
    recipe: WithTask = None,
    key: Key = None,
    native: Native = None,
) -> None:
    """Measure a dense or compressed model on a task.

    \b
    Example:
      ttcompress evaluate charlm.auto.safetensors --task charlm --native int8
    """
    from ttcompress.cli import console
    from ttcompress.workflows.evaluate import evaluate as measure

    asked = recipe_with_task(recipe, task).task
    assert asked is not None  # `recipe_with_task` refuses that
    with console.progress(talk) as progress:
        found = measure(
            file.path, asked.name, dict(asked.options), key=key, native=native, progress=progress
        )
    lines = [f"{name}: {value:.6g}" for name, value in found.items()]
    document = {"task": asked.name, "metrics": found}
    console.result(talk, document, str(file), [], lines)
