"""The command line: a file for each command, which calls one library function and shows its result.

Nothing here imports torch, pydantic or Rich before a command runs: `--help` answers at once.
"""

from __future__ import annotations

import sys
from io import TextIOWrapper
from typing import Annotated, Any

import typer

import ttcompress
from ttcompress.cli.batch import batch
from ttcompress.cli.bench import bench
from ttcompress.cli.card import card
from ttcompress.cli.compare import compare
from ttcompress.cli.decompose import decompose
from ttcompress.cli.evaluate import evaluate
from ttcompress.cli.export import export
from ttcompress.cli.finetune import finetune
from ttcompress.cli.headings import Command, Group
from ttcompress.cli.inspect import inspect
from ttcompress.cli.plan import plan
from ttcompress.cli.push import push
from ttcompress.cli.recipes import recipes
from ttcompress.cli.report import report
from ttcompress.cli.restore import restore
from ttcompress.cli.sweep import sweep
from ttcompress.cli.tasks import tasks
from ttcompress.cli.verify import verify
from ttcompress.errors import TTCompressError


class _Commands(Group):
    """Turns the program's own errors, and a lack of memory, into a message and an exit code.

    Any other exception is a defect and keeps its traceback.
    """

    def invoke(self, ctx: Any) -> Any:
        from ttcompress.system.memory import within_memory  # not for --help

        try:
            with within_memory("the command"):
                result = super().invoke(ctx)
            sys.stdout.flush()  # a closed pipe must fail here, not while Python exits
        except TTCompressError as error:
            from ttcompress.cli import console  # Rich is slow to import

            console.fail(error, verbose=ctx.meta.get("verbose", False))
            raise typer.Exit(error.exit_code) from error
        return result


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # importing Rich would take longer than all of --help
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ttcompress {ttcompress.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Make a trained LSTM, GRU or RNN smaller by storing its weights as tensor trains.

    A tensor train is a product of small factors, like a truncated SVD with more than two of them.

    \b
    Example:
      ttcompress inspect charlm.pt       # its layers, and how well low ranks suit them
      ttcompress decompose charlm.pt --factor 8 --task charlm
      ttcompress report charlm.auto.safetensors

    \b
    Exit codes:
      0 done                            4 a limit is broken
      1 unexpected, or disk trouble     5 some jobs of a batch failed
      2 wrong usage or recipe           130 interrupted
      3 unreadable model
    """


_COMMANDS = {
    "Look": (inspect, plan),
    "Compress": (decompose, finetune),
    "Judge": (report, evaluate, verify, bench),
    "Ship": (restore, export, card, push),
    "Many": (compare, sweep, batch),
}
for heading, commands in _COMMANDS.items():
    for command in commands:
        app.command(cls=Command, rich_help_panel=heading)(command)
app.add_typer(recipes, name="recipes", rich_help_panel="Look")
app.add_typer(tasks, name="tasks", rich_help_panel="Look")


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # names from a file need not be in its encoding
            stream.reconfigure(errors="backslashreplace")
    app(prog_name="ttcompress")
