"""Makes a `Recipe` from a file, a shipped recipe's name, text, or a mapping."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from ttcompress.errors import InputError, RecipeError, check_ordinary, unreadable
from ttcompress.recipe.problems import MOST_CHARACTERS, Document
from ttcompress.recipe.schema import VERSION, Recipe
from ttcompress.recipe.sections import read_document
from ttcompress.recipe.wording import suggest

AnyRecipe = Recipe | str | Path | Mapping[str, Any] | None
"""Anything that names a recipe: a `Recipe`, a file, the name of a shipped one, or a mapping of its
keys; None is the default recipe.
"""

DEFAULT_NAME = "balanced"
EXAMPLE = f"A small recipe is `version: {VERSION}` and `budget: {{factor: 8}}`."

UNUSED = {"budget": {"factor": 2}}
"""Stands for the budget of a recipe that compresses nothing; a recipe's own comes before it."""

MODELINE = "# yaml-language-server:"
"""Begins the comment that names a file's JSON Schema to an editor."""

_PACKAGE = Path(__file__).parents[1]
_SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class ShippedRecipe:
    """A recipe that ships with ttcompress; `title` is the first line of its opening comment."""

    name: str
    path: Path
    title: str


def load_recipe(path: str | Path) -> Recipe:
    """Read a recipe file.

    Raises:
        InputError: the file does not exist, or is a folder.
        RecipeError: the file is not a valid recipe; lists every problem with its key and line.
        TTCompressError: the file cannot be read.
    """
    return parse_recipe(read_text(Path(path)), str(path))


def parse_recipe(text: str, place: str = "recipe") -> Recipe:
    """Read recipe text; `place` names it in errors.

    Raises:
        RecipeError: the text is not a valid recipe; lists every problem with its key and line.

    >>> parse_recipe("{version: 1, budget: {size: 2MB}}").budget.size
    2000000
    """
    from ttcompress.recipe.yaml_text import read_yaml  # PyYAML: --help has no need of it

    return replace(read_document(Recipe, read_yaml(text), place, EXAMPLE), text=text)


def recipe_from(mapping: Mapping[str, object], place: str = "recipe") -> Recipe:
    """Make a recipe from Python values under the keys of a recipe file; None omits a key.

    Raises:
        RecipeError: the mapping is not a valid recipe; lists every problem with its key.

    >>> recipe_from({"version": 1, "budget": {"factor": 8}}).format
    'mps'
    """
    return read_document(Recipe, Document(_without_none(mapping)), place, EXAMPLE)


def _without_none(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(k): _without_none(item) for k, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_without_none(item) for item in value]
    return value


def as_recipe(recipe: AnyRecipe) -> Recipe:
    """Return the recipe that is given in any of the forms of `AnyRecipe`."""
    if isinstance(recipe, Recipe):
        return recipe
    if recipe is None:
        return default_recipe()
    if isinstance(recipe, Mapping):
        return recipe_from(recipe)
    return load_recipe(find_recipe(recipe))


def task_recipe(recipe: AnyRecipe) -> Recipe:
    """The same where only the task and its training matter: the recipe then needs no budget.

    >>> task_recipe({"version": 1, "task": "charlm"}).task.name
    'charlm'
    """
    if isinstance(recipe, Recipe) or recipe is None:
        return as_recipe(recipe)
    if isinstance(recipe, Mapping):
        return recipe_from({**UNUSED, **recipe})
    from ttcompress.recipe.yaml_text import read_yaml  # PyYAML: --help has no need of it

    path = find_recipe(recipe)
    document = read_yaml(text := read_text(path))
    if isinstance(document.value, dict):
        document = replace(document, value=UNUSED | document.value)
    return replace(read_document(Recipe, document, str(path), EXAMPLE), text=text)


@cache
def default_recipe() -> Recipe:
    """The recipe that is used when none is given: `balanced`."""
    return load_recipe(find_recipe(DEFAULT_NAME))


@cache
def shipped() -> tuple[ShippedRecipe, ...]:
    """List the shipped recipes: inside an installed package, or beside it in a working copy."""
    folders = (_PACKAGE / "recipes", _PACKAGE.parent / "recipes")
    folder = next((folder for folder in folders if folder.is_dir()), folders[0])
    return tuple(ShippedRecipe(p.stem, p, _title(p)) for p in sorted(folder.glob("*.yaml")))


def _title(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    title = next((line for line in lines if not line.startswith(MODELINE)), "")
    return title.removeprefix("#").strip()


def find_recipe(name_or_path: str | Path, folder: Path = Path()) -> Path:
    """Find the file of a shipped recipe by its name, or a recipe file relative to `folder`.

    A shipped name has neither a folder nor a suffix, so it never hides a file `small.yaml`.

    Raises:
        InputError: neither exists; suggests the nearest shipped recipe.
    """
    path, names = folder / name_or_path, {recipe.name: recipe.path for recipe in shipped()}
    if str(name_or_path) in names:
        return names[str(name_or_path)]
    if os.path.exists(path):  # unlike the method, False for a name no file can have
        return path
    if path.suffix in _SUFFIXES or len(Path(name_or_path).parts) > 1:
        raise InputError(f"{path}: there is no such recipe file.")
    raise InputError(
        f"{name_or_path}: neither a recipe file nor a shipped recipe.{suggest(name_or_path, names)}"
        f"\n    The shipped recipes are: {', '.join(names)}."
    )


def read_text(path: Path, kind: str = "recipe") -> str:
    """Read a text file that a user wrote; `kind` is what error messages call it.

    Raises:
        InputError: the file does not exist, or is a folder.
        RecipeError: it is too large, or is not text.
        TTCompressError: it cannot be read.
    """
    if os.path.isdir(path):
        raise InputError(f"{path}: is a folder, but a {kind} must be a YAML file.")
    check_ordinary(path, f"Save the {kind} to a file, and give the path of that.")
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_CHARACTERS + 1)
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such {kind} file.") from error
    except OSError as error:
        raise unreadable(path, error) from error
    if len(raw) > MOST_CHARACTERS:
        raise RecipeError(
            f"{path}: is larger than {MOST_CHARACTERS:,} bytes, but a {kind} is a page of YAML."
        )
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecipeError(
            f"{path}: is not text (byte {error.start} is not UTF-8), but a {kind} is YAML text."
        ) from error
