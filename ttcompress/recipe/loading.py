"""A recipe's file, text or Python mapping comes in, a `Recipe` goes out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ttcompress.errors import InputError, RecipeError, check_ordinary, unreadable
from ttcompress.recipe.schema import Recipe
from ttcompress.recipe.validation import validated
from ttcompress.recipe.yaml_text import MOST_CHARACTERS, Document, read_yaml


def load_recipe(path: str | Path) -> Recipe:
    """Read a recipe file.

    Raises:
        InputError: there is no such file, or it is a folder.
        RecipeError: the file is no recipe; every problem with its key and line.
        TTCompressError: the file cannot be read.
    """
    return parse_recipe(yaml_file(Path(path)), str(path))


def yaml_file(path: Path, kind: str = "recipe") -> str:
    """The text of a file that a user wrote; `kind` is what errors call it.

    Raises:
        InputError: there is no such file, or it is a folder.
        RecipeError: it is too large, or no text.
        TTCompressError: it cannot be read.
    """
    if os.path.isdir(path):
        raise InputError(f"{path}: is a folder, and a {kind} is a YAML file.")
    check_ordinary(path, f"Write the {kind} to a file, and give that.")
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_CHARACTERS + 1)
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such {kind} file.") from error
    except OSError as error:
        raise unreadable(path, error) from error
    if len(raw) > MOST_CHARACTERS:
        raise RecipeError(
            f"{path}: holds more than {MOST_CHARACTERS:,} bytes, and a {kind} is a page of YAML."
        )
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecipeError(
            f"{path}: is not text (byte {error.start} is not UTF-8), and a {kind} is YAML text."
        ) from error


def parse_recipe(text: str, place: str = "recipe") -> Recipe:
    """Read recipe text; `place` names it in errors.

    Raises:
        RecipeError: every problem with its key and line.

    >>> parse_recipe("{version: 1, budget: {size: 2MB}}").budget.size
    2000000
    """
    return validated(read_yaml(text), place, text=text)


def recipe_from(mapping: Mapping[str, object], place: str = "recipe") -> Recipe:
    """A recipe from Python values under the keys that a file has; None is a key left out.

    Raises:
        RecipeError: every problem with its key.

    >>> recipe_from({"version": 1, "budget": {"factor": 8}}).format
    'mps'
    """
    return validated(Document(_without_none(mapping)), place)


def _without_none(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(k): _without_none(item) for k, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_without_none(item) for item in value]
    return value
