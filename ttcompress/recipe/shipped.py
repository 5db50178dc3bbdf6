"""A recipe's name comes in, its file goes out: the recipes that ttcompress brings along."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ttcompress.errors import InputError
from ttcompress.recipe.loading import load_recipe, recipe_from
from ttcompress.recipe.schema import Recipe
from ttcompress.recipe.wording import nearest

AnyRecipe = Recipe | str | Path | Mapping[str, Any] | None
"""Whatever a user has in hand: a recipe, a file, a shipped one's name, a mapping; None is the
default.
"""

DEFAULT_NAME = "balanced"

_PACKAGE = Path(__file__).parents[1]
_SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class ShippedRecipe:
    """A recipe that came with the program; `title` is the first line of its opening comment."""

    name: str
    path: Path
    title: str


@cache
def shipped() -> tuple[ShippedRecipe, ...]:
    """The shipped recipes by name: inside an installed package, beside it in a working copy."""
    folders = (_PACKAGE / "recipes", _PACKAGE.parent / "recipes")
    folder = next((folder for folder in folders if folder.is_dir()), folders[0])
    return tuple(ShippedRecipe(p.stem, p, _title(p)) for p in sorted(folder.glob("*.yaml")))


def _title(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        return file.readline().removeprefix("#").strip()


def find_recipe(name_or_path: str | Path, folder: Path = Path()) -> Path:
    """The file of a shipped recipe's name, or of a path from a folder: by default, from here.

    A name has neither a folder nor a suffix: a shipped name never hides a file `small.yaml`.

    Raises:
        InputError: there is neither; names the nearest shipped recipe.
    """
    path, names = folder / name_or_path, {recipe.name: recipe.path for recipe in shipped()}
    if str(name_or_path) in names:
        return names[str(name_or_path)]
    if os.path.exists(path):  # unlike the method, False for a name no file can have
        return path
    if path.suffix in _SUFFIXES or len(Path(name_or_path).parts) > 1:
        raise InputError(f"{path}: there is no such recipe file.")
    raise InputError(
        f"{name_or_path}: neither a recipe file nor a shipped recipe.{nearest(name_or_path, names)}"
        f"\n    Shipped are: {', '.join(names)}."
    )


@cache
def default_recipe() -> Recipe:
    """The recipe in force when none is given: `balanced`."""
    return load_recipe(find_recipe(DEFAULT_NAME))


def as_recipe(recipe: AnyRecipe) -> Recipe:
    """A recipe from whatever a user has in hand."""
    if isinstance(recipe, Recipe):
        return recipe
    if recipe is None:
        return default_recipe()
    if isinstance(recipe, Mapping):
        return recipe_from(recipe)
    return load_recipe(find_recipe(recipe))
