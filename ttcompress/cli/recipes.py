"""The commands `recipes list`, `show`, `check` and `schema`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from ttcompress.cli.arguments import Key, Talk, flatten_options
from ttcompress.cli.headings import Command
from ttcompress.cli.model_file import ModelFile

if TYPE_CHECKING:
    from ttcompress.recipe import Assignment

recipes = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="List, show and check recipes.",
)

Name = Annotated[
    str, typer.Argument(metavar="RECIPE", help="Recipe file, or the name of a shipped recipe.")
]
OfManifest = Annotated[
    bool, typer.Option("--manifest", help="Print the schema of batch manifests instead.")
]
MaybeModel = Annotated[
    ModelFile | None,
    typer.Argument(parser=ModelFile, metavar="MODEL", help="Trained checkpoint."),
]


@recipes.command("list", cls=Command)
@flatten_options
def list_recipes(talk: Talk) -> None:
    """List the shipped recipes.

    \b
    Example:
      ttcompress recipes list
    """
    from ttcompress.cli import console
    from ttcompress.recipe import shipped
    from ttcompress.reporting.table import Column, Table

    found = [(recipe.name, recipe.title) for recipe in shipped()]
    if talk.json:
        console.document({"recipes": [{"name": name, "title": title} for name, title in found]})
    else:
        console.show("", [Table((Column("recipe", name=True), Column("what for")), tuple(found))])


@recipes.command("show", cls=Command)
@flatten_options
def show_recipe(name: Name, talk: Talk) -> None:
    """Print a recipe; with --json, also every key that is in effect.

    \b
    Example:
      ttcompress recipes show balanced > mine.yaml
    """
    from ttcompress.cli import console
    from ttcompress.recipe import effective, find_recipe, load_recipe

    recipe = load_recipe(find_recipe(name))
    if talk.json:
        console.document({"name": name, "text": recipe.text, "effective": effective(recipe)})
    else:
        console.text(recipe.text)


@recipes.command("check", cls=Command)
@flatten_options
def check_recipe(name: Name, talk: Talk, model: MaybeModel = None, key: Key = None) -> None:
    """Check a recipe, and show which rule applies to each weight of MODEL.

    \b
    Example:
      ttcompress recipes check mine.yaml charlm.pt

    Whether the budget can be reached is not checked: see ttcompress plan.
    """
    from ttcompress.cli import console
    from ttcompress.recipe import effective, find_recipe, load_recipe, match
    from ttcompress.reporting.assignments import assignments_json, assignments_table

    recipe = load_recipe(find_recipe(name))
    taken: Sequence[Assignment] = ()
    if model:
        from ttcompress.checkpoint import open_checkpoint  # torch, not needed for a recipe alone

        taken = match(recipe, open_checkpoint(model.path, key or recipe.key).weights)
    if talk.json:
        document = {
            "name": name,
            "effective": effective(recipe),
            "weights": assignments_json(taken),
        }
        console.document(document)
    else:
        fits = f"fits {model}" if model else "is a valid recipe"
        console.show(f"{name} {fits}", [assignments_table(taken)])


@recipes.command("schema", cls=Command)
@flatten_options
def print_schema(talk: Talk, manifest: OfManifest = False) -> None:
    """Print the JSON Schema of recipes, for an editor.

    \b
    Example:
      ttcompress recipes schema > schema.json

    \b
    Save it beside a recipe, and name it in the recipe's first line:
      # yaml-language-server: $schema=schema.json
    """
    from ttcompress.cli import console
    from ttcompress.recipe.manifest import Manifest
    from ttcompress.recipe.reference import json_schema
    from ttcompress.recipe.schema import Recipe

    console.document(json_schema(Manifest if manifest else Recipe))
