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
      ttcompress restore charlm.auto.safetensors -o dense.pt
    """
    from ttcompress.cli import console
    from ttcompress.reporting.left_out import left_out_remarks
    from ttcompress.system.files import check_output
    from ttcompress.system.json import plain
    from ttcompress.workflows.restore import restore as write_dense

    check_output(output, overwrite)  # before a download
    restored = write_dense(file.path, output, overwrite)
    if talk.json:
        size = output.stat().st_size
        console.document({"file": str(output), "bytes": size, "left_out": plain(restored.left_out)})
    for line in left_out_remarks(restored.left_out):
        console.say(line, talk)
    console.say(f"wrote {output}", talk)
    for note in restored.notes:
        console.say(note, talk)
