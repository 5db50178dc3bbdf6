"""The command `decompose`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ttcompress.cli.arguments import (
    DecomposeOptions,
    Model,
    Overwrite,
    Talk,
    TuningOptions,
    flattened,
)
from ttcompress.cli.artifact import default_name, deliver
from ttcompress.errors import OutputPathError

Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="The artifact.  [MODEL's stem + .mps.safetensors, here]"),
]


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
    from ttcompress.system.files import check_output
    from ttcompress.training.finetune import CONDITIONS
    from ttcompress.workflows.compress import compress

    recipe, conditions = chosen.in_force(), CONDITIONS
    path = output or Path(default_name(model, recipe.format))
    if recipe.finetune is None:
        tuning.refuse()
    check_output(path, overwrite)  # before the work, which can be long
    if path.exists() and model.exists() and path.samefile(model):
        raise OutputPathError(f"{path}: is the model itself. Use another -o.")
    with console.progress(talk) as progress:
        if recipe.finetune is not None:
            conditions = tuning.conditions(path, overwrite, console.watching(progress, talk))
        trials = path.with_name(f"{path.name}.trials.json")
        compressed = compress(
            model, recipe, conditions=conditions, trials=trials, progress=progress
        )
    deliver(compressed, path, overwrite, f"{model}: {chosen.title()}", talk)
