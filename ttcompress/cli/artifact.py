"""Names an artifact, and saves and shows it, for every command that makes one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ttcompress.cli.arguments import Talk
from ttcompress.cli.model_file import ModelFile
from ttcompress.errors import BROKEN_LIMIT, OutputError
from ttcompress.system.launch import is_first

if TYPE_CHECKING:
    from ttcompress.artifact import CompressedModel


def default_name(model: ModelFile, format: str) -> str:
    """The artifact's name if none is given.

    >>> default_name(ModelFile("runs/charlm.pt"), "mps")
    'charlm.mps.safetensors'
    >>> default_name(ModelFile("model.safetensors.index.json"), "auto")
    'model.auto.safetensors'
    >>> default_name(ModelFile("hf://user/charlm@v1"), "auto")
    'charlm.auto.safetensors'
    """
    return f"{model.stem}.{format}.safetensors"


@dataclass
class Delivery:
    """Writes an artifact as soon as it is finished, and shows its report when all is done.

    Attributes:
        path: of the artifact.
        overwrite: whether it may replace a file.
        talk: how results are shown.
        written: whether it has been written; it is once more when the control has been trained.
    """

    path: Path
    overwrite: bool
    talk: Talk
    written: bool = False

    def keep(self, made: CompressedModel) -> None:
        """Write a finished model, or replace what this run has written.

        Raises:
            OutputError: it cannot be written; says where the training is kept.
        """
        from ttcompress.training.finetune import saved_states

        if not is_first():
            return
        try:
            made.save(self.path, self.overwrite or self.written)
        except OutputError as error:
            if saved_states(state_of(self.path)):
                raise type(error)(
                    f"{error} The training is kept: run again with --resume."
                ) from error
            raise
        self.written = True

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """Say what an interrupt in the block has left, and how to continue."""
        from ttcompress.cli import console
        from ttcompress.training.finetune import saved_states

        try:
            yield
        except KeyboardInterrupt:
            states = saved_states(state_of(self.path))
            if self.written:
                console.say(f"{self.path} was written; only the control is missing", self.talk)
            if states:
                more = " --overwrite" if self.written else ""
                console.say(f"{states[-1]} keeps the training: add --resume{more}", self.talk)
            raise

    def show(self, made: CompressedModel, title: str, model: ModelFile | None = None) -> None:
        """Show the report of what was made of a checkpoint; exit with 4 if a limit is broken."""
        from ttcompress.cli import console
        from ttcompress.reporting.report import report_summary
        from ttcompress.workflows.limits import broken_limits

        if not is_first():
            return
        path, talk = self.path, self.talk
        names = (str(path), "MODEL" if model is None else str(model))
        size = path.stat().st_size
        conclusion, tables, remarks = report_summary(made.report, size, *names)
        console.result(talk, made.report, f"{title}\n{conclusion}", tables, remarks)
        console.say(f"wrote {path}", talk)
        failed = broken_limits(made.report)
        for limit in failed:
            allowed, reached = f"{limit['limit']:,.12g}", f"{limit['value']:,.12g}"
            console.say(f"limit broken: {limit['name']} is {allowed}, but got {reached}", talk)
        if failed:
            console.say(f"{path} was written, and its report names the broken limits", talk)
            raise typer.Exit(BROKEN_LIMIT)


def state_of(output: Path) -> Path:
    """The file beside an output in which its training is saved."""
    return output.with_name(f"{output.name}.resume")
