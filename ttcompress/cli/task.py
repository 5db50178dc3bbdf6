"""The options that name a task, for the commands that need one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ttcompress.cli.headings import TASK
from ttcompress.errors import RecipeError

if TYPE_CHECKING:
    from ttcompress.recipe import Recipe

TaskName = Annotated[
    str | None,
    typer.Option(
        "--task",
        metavar="TASK",
        help="Built-in task, or file.py:Name for your own.",
        rich_help_panel=TASK,
    ),
]
WithTask = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        "-r",
        metavar="RECIPE",
        help="Recipe to take the task and fine-tuning settings from.",
        rich_help_panel=TASK,
    ),
]


def recipe_with_task(recipe: str | None, task: str | None) -> Recipe:
    """The recipe, or the default one, with a task in it.

    Raises:
        RecipeError: neither names a task.
    """
    from ttcompress.recipe import task_recipe, with_options

    chosen = with_options(task_recipe(recipe), task=task)
    if chosen.task is None:
        raise RecipeError(
            "no task is given, so there is nothing to measure. Add one, such as --task charlm."
        )
    return chosen
