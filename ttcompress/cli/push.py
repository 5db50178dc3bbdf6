"""The command `push`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ttcompress.cli.arguments import Artifact, Talk, flatten_options
from ttcompress.cli.card import BaseModel

Repository = Annotated[
    str, typer.Argument(metavar="USER/NAME", help="Repository on the hub, made if needed.")
]
Private = Annotated[
    bool, typer.Option("--private", help="Make a new repository visible to you alone.")
]
Revision = Annotated[
    str | None,
    typer.Option("--revision", metavar="BRANCH", help="Branch, made if needed.  [main]"),
]
Replace = Annotated[
    bool, typer.Option("--overwrite", help="Replace the file and the card if they are there.")
]


@flatten_options
def push(
    file: Artifact,
    repository: Repository,
    talk: Talk,
    private: Private = False,
    revision: Revision = None,
    base_model: BaseModel = None,
    overwrite: Replace = False,
) -> None:
    """Put a compressed model on the Hugging Face hub, with its card.

    \b
    Example:
      ttcompress push charlm.auto.safetensors user/charlm-small --private
      ttcompress restore hf://user/charlm-small -o dense.pt

    Log in first: hf auth login, or HF_TOKEN. Needs the extra hub.
    """
    from ttcompress.cli import console
    from ttcompress.system.json import plain
    from ttcompress.workflows.push import push as upload

    done = upload(
        file.path,
        repository,
        private=private,
        revision=revision,
        base_model=base_model,
        overwrite=overwrite,
        bars=not talk.quiet and sys.stderr.isatty(),
    )
    if talk.json:
        console.document(plain(done))
    console.say(f"pushed {' and '.join(done.files)} to {done.address}: {done.url}", talk)
