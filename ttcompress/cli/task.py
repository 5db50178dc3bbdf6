"""The options that name a task, for the commands that need one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ttcompress.errors import RecipeError

if TYPE_CHECKING:
    from ttcompress.recipe import Recipe

TaskName = Annotated[
    str | None,
    typer.Option("--task", help="A built-in task, or file.py:Name.", metavar="TASK"),
]
WithTask = Annotated[
    str | None,
    typer.Option("--recipe", "-r", help="A recipe whose task and finetune blocks count."),
]


def recipe_with_task(recipe: str | None, task: str | None) -> Recipe:
    """The recipe, or the default one, with a task in it.

    Raises:
        RecipeError: neither names a task.
    """
    from ttcompress.recipe import as_recipe, with_options

    chosen = with_options(as_recipe(recipe), task=task)
    if chosen.task is None:
        raise RecipeError("no task: nothing says what to measure. Add --task, as --task charlm.")
    return chosen
