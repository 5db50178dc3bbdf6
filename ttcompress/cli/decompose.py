"""The command `decompose`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ttcompress.cli.arguments import (
    DecomposeOptions,
    Model,
    Overwrite,
    Talk,
    TuningOptions,
    flatten_options,
)
from ttcompress.cli.artifact import Delivery, default_name, state_of
from ttcompress.errors import OutputPathError

Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="File to write.  [charlm.auto.safetensors for charlm.pt]"),
]


@flatten_options
def decompose(
    model: Model,
    chosen: DecomposeOptions,
    tuning: TuningOptions,
    talk: Talk,
    output: Output = None,
    overwrite: Overwrite = False,
) -> None:
    """Compress a checkpoint into one file, with its report.

    \b
    Example:
      ttcompress decompose charlm.pt --factor 8 -o small.safetensors

    Without options the recipe balanced is followed. --factor or --size says how small the result
    must be; with a task, --drop 1% finds the smallest file that is accurate enough.

    \b
    mps   factors for rows, then for columns; with two it is a truncated SVD
    mpo   factors that each hold a part of the rows and of the columns
    auto  for each weight the best of mps, mpo and fewer bits alone
    """
    from ttcompress.cli import console
    from ttcompress.system.files import check_output
    from ttcompress.training.finetune import CONDITIONS
    from ttcompress.workflows.compress import compress

    recipe, conditions = chosen.resolve(), CONDITIONS
    path = output or Path(default_name(model, recipe.format))
    if recipe.finetune is None:
        tuning.refuse()
    check_output(path, overwrite)  # before the work, which can be long
    if path.exists() and model.path.exists() and path.samefile(model.path):
        raise OutputPathError(f"{path}: is the model itself. Choose another output with -o.")
    delivery = Delivery(path, overwrite, talk)
    with delivery.explaining(), console.progress(talk) as progress:
        if recipe.finetune is not None:
            watch = console.watching(progress, talk)
            conditions = tuning.conditions(state_of(path), overwrite, watch)
        compressed = compress(
            model.path,
            recipe,
            conditions=replace(conditions, keep=delivery.keep),
            trials=path.with_name(f"{path.name}.trials.json"),
            progress=progress,
        )
    delivery.show(compressed, f"{model}: {chosen.title()}", model)
