"""Names an artifact, and saves and shows it, for every command that makes one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ttcompress.cli.arguments import Talk
from ttcompress.errors import BROKEN_LIMIT
from ttcompress.system.launch import is_first

if TYPE_CHECKING:
    from ttcompress.artifact import CompressedModel


def default_name(model: Path, format: str) -> str:
    """The artifact's name if none is given.

    >>> default_name(Path("runs/charlm.pt"), "mps")
    'charlm.mps.safetensors'
    >>> default_name(Path("model.safetensors.index.json"), "auto")
    'model.auto.safetensors'
    """
    from ttcompress.system.files import model_stem

    return f"{model_stem(model)}.{format}.safetensors"


def deliver(made: CompressedModel, path: Path, overwrite: bool, title: str, talk: Talk) -> None:
    """Write an artifact and show its report; exit with 4 if a limit is broken."""
    from ttcompress.cli import console
    from ttcompress.reporting.report import report_summary
    from ttcompress.workflows.limits import broken_limits

    if not is_first():
        return
    made.save(path, overwrite)
    summary = report_summary(made.report, path.stat().st_size)
    console.result(talk, made.report, title, *summary)
    console.say(f"wrote {path}", talk)
    failed = broken_limits(made.report)
    for limit in failed:
        allowed, reached = f"{limit['limit']:,.12g}", f"{limit['value']:,.12g}"
        console.say(f"limit broken: {limit['name']} is {allowed}, but got {reached}", talk)
    if failed:
        console.say(f"{path} was written, and its report names the broken limits", talk)
        raise typer.Exit(BROKEN_LIMIT)
