"""The command `card`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ttcompress.cli.arguments import Artifact, Overwrite, Talk, flatten_options

BaseModel = Annotated[
    str | None,
    typer.Option("--base-model", metavar="USER/NAME", help="Repository of the original model."),
]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="File to write.  [stdout]")]


@flatten_options
def card(
    file: Artifact,
    talk: Talk,
    output: Output = None,
    base_model: BaseModel = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a model card from the report, for the Hugging Face hub.

    \b
    Example:
      ttcompress card charlm.auto.safetensors -o README.md
    """
    from ttcompress.cli import console
    from ttcompress.system.files import check_output, written_whole
    from ttcompress.workflows.push import card as write_card

    if output is not None:
        check_output(output, overwrite)
    place = file.name if file.address else None
    text = write_card(file.path, place=place, base_model=base_model)
    if talk.json:
        console.document({"card": text})
    elif output is None:
        console.text(text)
    if output is not None:
        with written_whole(output, overwrite) as written:
            written.write(text.encode())
        console.say(f"wrote {output}", talk)
