"""The commands `tasks list`, `init` and `check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ttcompress.cli.arguments import Key, Model, Overwrite, Talk, flatten_options
from ttcompress.cli.headings import Command
from ttcompress.cli.task import TaskName, WithTask, recipe_with_task

tasks = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="List tasks, begin one of your own, and check it.",
)

File = Annotated[Path, typer.Argument(metavar="FILE", help="Python file to write.")]


@tasks.command("list", cls=Command)
@flatten_options
def list_tasks(talk: Talk) -> None:
    """List the built-in and the installed tasks with their options.

    \b
    Example:
      ttcompress tasks list
    """
    from ttcompress.cli import console
    from ttcompress.reporting.table import Column, tabulate
    from ttcompress.tasks.registry import known_tasks

    found = known_tasks()
    if talk.json:
        console.document({"tasks": [vars(one) for one in found]})
        return
    cells = {
        Column("task", name=True): lambda one: one.name,
        Column("what for"): lambda one: one.title,
        Column("options"): lambda one: " ".join(one.options) or "-",
    }
    console.show("", [tabulate(found, cells)])


@tasks.command("init", cls=Command)
@flatten_options
def begin_task(file: File, talk: Talk, overwrite: Overwrite = False) -> None:
    """Write a file to start from, with a model, data and a metric.

    \b
    Example:
      ttcompress tasks init mytask.py
    """
    from ttcompress.cli import console
    from ttcompress.system.files import written_whole
    from ttcompress.tasks.registry import TEMPLATE

    with written_whole(file, overwrite) as output:
        output.write(TEMPLATE.read_bytes())
    console.say(
        f"wrote {file}; check it with: ttcompress tasks check MODEL --task {file}:task", talk
    )


@tasks.command("check", cls=Command)
@flatten_options
def check_one(
    model: Model,
    talk: Talk,
    task: TaskName = None,
    recipe: WithTask = None,
    key: Key = None,
) -> None:
    """Run one batch through a task, and measure MODEL.

    \b
    Example:
      ttcompress tasks check charlm.pt --task charlm
    """
    from ttcompress.cli import console
    from ttcompress.reporting.table import Column, tabulate
    from ttcompress.workflows.check_task import check_task

    found = list(check_task(model.path, recipe_with_task(recipe, task), key=key))
    if talk.json:
        console.document({"members": {one.member: one.found for one in found}})
        return
    cells = {
        Column("member", name=True): lambda one: one.member,
        Column("found"): lambda one: one.found,
    }
    console.show("the task fits the model", [tabulate(found, cells)])
