"""`verify` and `restore`: a compressed file beside the model it was made from, or back to one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ttcompress.cli.arguments import Artifact, Key, Overwrite, Talk, flattened

Against = Annotated[
    Path, typer.Option("--against", metavar="MODEL", help="The checkpoint it was made from.")
]
Dense = Annotated[Path, typer.Option("--output", "-o", help="The dense checkpoint to write.")]

DIFFERENT = 1
"""The exit code where an artifact is not what its report says."""


@flattened
def verify(file: Artifact, against: Against, talk: Talk, key: Key = None) -> None:
    """Compute every error of FILE again, from it and from the model it was made from.

    Exit code 0 says that the report is right and that every kept tensor is the model's own.

    \b
    Example:
      ttcompress verify charlm.mps.safetensors --against charlm.pt
    """
    from ttcompress.cli import console
    from ttcompress.reporting.verification import verification_remarks, verification_table
    from ttcompress.workflows.verify import verify as check

    with console.progress(talk) as progress:
        found = check(file, against, key=key, progress=progress)
    if talk.json:
        console.document(found.as_json())
    else:
        console.show(str(file), [verification_table(found)], verification_remarks(found))
    if not found.agrees:
        raise typer.Exit(DIFFERENT)


@flattened
def restore(file: Artifact, output: Dense, talk: Talk, overwrite: Overwrite = False) -> None:
    """Write FILE as an ordinary state dict for the original code.

    \b
    Example:
      ttcompress restore charlm.mps.safetensors -o dense.pt
    """
    from ttcompress.cli import console
    from ttcompress.workflows.restore import restore as write_dense

    write_dense(file, output, overwrite)
    if talk.json:
        console.document({"file": str(output), "bytes": output.stat().st_size})
    console.say(f"wrote {output}", talk)
