"""The command `verify`."""

from __future__ import annotations

from typing import Annotated

import typer

from ttcompress.cli.arguments import Artifact, Key, Talk, flatten_options
from ttcompress.cli.model_file import ModelFile

Against = Annotated[
    ModelFile,
    typer.Option(
        "--against", parser=ModelFile, metavar="MODEL", help="Checkpoint it was made from."
    ),
]

DIFFERENT = 1
"""The exit code where an artifact is not what its report says."""


@flatten_options
def verify(file: Artifact, against: Against, talk: Talk, key: Key = None) -> None:
    """Check a compressed model's report against its original.

    \b
    Example:
      ttcompress verify charlm.auto.safetensors --against charlm.pt

    Every error is computed again from the two files. Exit code 0 means that the report is right
    and that every tensor that was kept is the original's, bit for bit.
    """
    from ttcompress.cli import console
    from ttcompress.reporting.verification import verification_remarks, verification_table
    from ttcompress.workflows.verify import verify as check

    with console.progress(talk) as progress:
        found = check(file.path, against.path, key=key, progress=progress)
    console.result(talk, found, str(file), [verification_table(found)], verification_remarks(found))
    if not found.agrees:
        raise typer.Exit(DIFFERENT)
