"""The command line: a file for each command, which calls one library function and shows its result.

Nothing here imports torch, pydantic or Rich before a command runs: `--help` answers at once.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import ttcompress
from ttcompress.cli.batch import batch
from ttcompress.cli.bench import bench
from ttcompress.cli.compare import compare
from ttcompress.cli.decompose import decompose
from ttcompress.cli.evaluate import evaluate
from ttcompress.cli.export import export
from ttcompress.cli.finetune import finetune
from ttcompress.cli.inspect import inspect
from ttcompress.cli.plan import plan
from ttcompress.cli.recipes import recipes
from ttcompress.cli.report import report
from ttcompress.cli.restore import restore
from ttcompress.cli.sweep import sweep
from ttcompress.cli.verify import verify
from ttcompress.errors import TTCompressError


class _Commands(TyperGroup):
    """Turns the program's own errors, and a lack of memory, into a message and an exit code; others
    are defects and keep their traceback.
    """

    def invoke(self, ctx: Any) -> Any:
        from ttcompress.system.memory import within_memory  # none of --help's time

        try:
            with within_memory("the command"):
                result = super().invoke(ctx)
            sys.stdout.flush()  # a reader that has gone must show here, not as Python exits
        except TTCompressError as error:
            from ttcompress.cli import console  # Rich is slow to import

            console.fail(error, verbose=ctx.meta.get("verbose", False))
            raise typer.Exit(error.exit_code) from error
        return result


app = typer.Typer(
    cls=_Commands,
    add_completion=False,
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
    """Make a trained LSTM smaller and faster by writing its weights as tensor trains.

    Exit codes: 0 done; 1 unexpected, disk full or unreadable; 2 usage or recipe; 3 checkpoint or
    artifact not understood; 4 a limit broke; 5 a batch partly failed; 130 interrupted.
    """


_COMMANDS = (
    *(inspect, plan, decompose, evaluate, finetune, compare, sweep),
    *(report, verify, restore, export, bench, batch),
)
for command in _COMMANDS:
    app.command()(command)
app.add_typer(recipes, name="recipes")


def main() -> None:
    """Run the command line."""
    app(prog_name="ttcompress")
