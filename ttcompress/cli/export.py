"""The command `export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from ttcompress.cli.arguments import Artifact, Overwrite, Talk, flatten_options
from ttcompress.cli.task import TaskName, WithTask
from ttcompress.targets.registry import DEFAULT, TARGETS

if TYPE_CHECKING:
    from ttcompress.artifact import CompressedModel
    from ttcompress.layers.stacks import Nonlinearity
    from ttcompress.tasks.protocol import Task

Output = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        help="File to write, or folder for C; several layers go to one each, by name.",
    ),
]
TargetName = Annotated[
    str,
    typer.Option("--as", metavar="|".join(TARGETS), help="Target to write for."),
]
Quantize = Annotated[
    str | None,
    typer.Option(
        "--quantize",
        metavar="none|int8|int4",
        help="Multiply in int8, which rounds the inputs too; int4: with weights of 4 bits, in C.",
    ),
]
Opset = Annotated[
    int | None,
    typer.Option(
        "--opset",
        metavar="N",
        help="Version of ONNX's operators, from 15 on; default: 18, or 21 if that saves bytes.",
    ),
]
Layers = Annotated[
    str | None,
    typer.Option(
        "--layers",
        metavar="auto|scan|lstm",
        help="In ONNX: layers as Scans, as operators such as LSTM, or each the faster way.",
    ),
]
OfRNNs = Annotated[
    str,
    typer.Option(
        "--nonlinearity",
        metavar="tanh|relu",
        help="Nonlinearity of plain RNNs, if no task is given.",
    ),
]


@flatten_options
def export(
    file: Artifact,
    output: Output,
    talk: Talk,
    target: TargetName = DEFAULT,
    quantize: Quantize = None,
    opset: Opset = None,
    layers: Layers = None,
    task: TaskName = None,
    recipe: WithTask = None,
    nonlinearity: OfRNNs = "tanh",
    overwrite: Overwrite = False,
) -> None:
    """Write a compressed model for ONNX Runtime, or as C source files.

    \b
    Example:
      ttcompress export charlm.auto.safetensors --task charlm -o charlm.onnx
      ttcompress export charlm.auto.safetensors --as c --quantize int8 -o charlm/

    With a task the whole model is written, otherwise each recurrent layer by itself; both take any
    length and batch size. C needs no task if the structure is an embedding, recurrent layers and
    a linear layer. Outputs are compared with torch's first: ONNX needs the extra onnx, and C a
    compiler, without which it is written unchecked.
    """
    from ttcompress.artifact import load
    from ttcompress.checkpoint.recurrent import foreign_layers
    from ttcompress.cli import console
    from ttcompress.reporting.export import exported_remarks, exported_table
    from ttcompress.workflows.export import export as write

    compressed = load(file.path)
    with console.progress(talk) as progress:
        made = write(
            compressed,
            output,
            target=target,
            task=_task(compressed, task, recipe),
            quantize=quantize,
            opset=opset,
            layers=layers,
            name=file.stem,
            nonlinearity=cast("Nonlinearity", nonlinearity),
            overwrite=overwrite,
            progress=progress,
        )
    left_out = () if task or recipe else foreign_layers(compressed)
    document = {"files": [one.as_json() for one in made], "left_out": list(left_out)}
    remarks = exported_remarks(
        made, file.path.stat().st_size, left_out, quantized=quantize is not None
    )
    console.result(talk, document, str(file), [exported_table(made)], remarks)
    console.say(f"wrote {', '.join(str(one.file) for one in made)}", talk)


def _task(compressed: CompressedModel, task: str | None, recipe: str | None) -> Task | None:
    """The task, with the options that a recipe gives it; None where nothing names one."""
    from ttcompress.recipe import task_recipe, with_options
    from ttcompress.workflows.job import named_task

    return named_task(with_options(task_recipe(recipe), task=task), compressed)
