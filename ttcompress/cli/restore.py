"""The command `restore`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ttcompress.cli.arguments import Artifact, Overwrite, Talk, flatten_options

Dense = Annotated[Path, typer.Option("--output", "-o", help="Dense checkpoint to write.")]


@flatten_options
def restore(file: Artifact, output: Dense, talk: Talk, overwrite: Overwrite = False) -> None:
    """Write a compressed model as a dense checkpoint.

    \b
    Example:
      ttcompress restore charlm.mps.safetensors -o dense.pt
    """
    from ttcompress.cli import console
    from ttcompress.workflows.restore import restore as write_dense

    notes = write_dense(file, output, overwrite)
    if talk.json:
        console.document({"file": str(output), "bytes": output.stat().st_size})
    console.say(f"wrote {output}", talk)
    for note in notes:
        console.say(note, talk)
