"""A document of plain values comes in; a `Recipe`, or one error with every problem, goes out.

`made_of` does the same for whatever else is written as recipes are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields
from itertools import pairwise
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from ttcompress.errors import RecipeError
from ttcompress.recipe.problems import KeyPath, Problem, render
from ttcompress.recipe.schema import VERSION, Budget, Limits, Recipe, Rule
from ttcompress.recipe.training import CalibrationChoice, Finetune
from ttcompress.recipe.wording import described, nearest
from ttcompress.recipe.yaml_text import Document

BUDGET_KEYS: tuple[str, ...] = tuple(field.name for field in fields(Budget))
CALIBRATION_KEYS: tuple[str, ...] = tuple(field.name for field in fields(CalibrationChoice))
FINETUNE_KEYS: tuple[str, ...] = tuple(field.name for field in fields(Finetune))
LIMIT_KEYS: tuple[str, ...] = tuple(field.name for field in fields(Limits))
RULE_KEYS: tuple[str, ...] = tuple(field.name for field in fields(Rule))
RECIPE_KEYS: tuple[str, ...] = tuple(
    field.name
    for field in fields(Recipe)
    if field.name != "text"  # not a key: it holds the others
)

Made = TypeVar("Made")
Section = tuple[KeyPath, object, tuple[str, ...]]
"""Where keys stand, the mapping they are in (or what is there in its place), and those known."""

_EXAMPLE = "A small recipe is `version: 1` and `budget: {factor: 8}`."
_MISSING: dict[str, str] = {
    "name": "Write which task, for example `name: language-model`.",
    "version": f"Write `version: {VERSION}`.",
    "weights": "Write a role (recurrent, embedding, linear, all), a glob or `re:...`.",
}
_RECIPE = TypeAdapter(Recipe)


def validated(
    document: Document,
    place: str,
    text: str = "",
    options: Mapping[KeyPath, str] | None = None,
) -> Recipe:
    """The recipe that a document holds.

    Args:
        document: what was read, with the problems met so far.
        place: the recipe's name in the error: its file, or the options given.
        text: the recipe as written.
        options: the option that a key's value came from, for the error to name.

    Raises:
        RecipeError: every problem, each with its key and, from a file, its line.
    """

    def make(value: Mapping[Any, Any]) -> Recipe:
        context = {"format": value.get("format", "mps")}
        return _RECIPE.validate_python({**value, "text": text}, context=context)

    return made_of(document, place, make, _sections, _MISSING, _EXAMPLE, options)


def made_of(
    document: Document,
    place: str,
    make: Callable[[Mapping[Any, Any]], Made],
    sections: Callable[[Mapping[Any, Any]], Iterable[Section]],
    missing: Mapping[str, str],
    example: str,
    options: Mapping[KeyPath, str] | None = None,
) -> Made:
    """What `make` builds from a document's keys.

    Args:
        document: what was read, with the problems met so far.
        place: its name in the error.
        make: raises pydantic's ValidationError with everything that is wrong.
        sections: where keys stand, and which are known there.
        missing: by the name of a key that must be there, what to write.
        example: the least that could stand in an empty document.
        options: the option that a key's value came from.

    Raises:
        RecipeError: every problem, each with its key and, from a file, its line.
    """
    problems, made = [*document.problems], None
    if isinstance(document.value, Mapping):
        problems += _strange_keys(sections(document.value))
        try:
            made = make(document.value)
        except ValidationError as error:
            problems += (_translated(one, missing) for one in error.errors())
    elif not problems:
        problems.append(_nothing(document.value, example))
    if made is None or problems:
        raise RecipeError(render(place, problems, document.lines, options or {}))
    return made


def _nothing(value: object, example: str) -> Problem:
    fact = "there is nothing in it." if value is None else f"expected keys, got {described(value)}."
    return Problem((), f"{fact}\n{example}")


def _sections(recipe: Mapping[Any, Any]) -> list[Section]:
    """The keys that a recipe has."""
    rules = recipe.get("rules")
    sections: list[Section] = [
        ((), recipe, RECIPE_KEYS),
        (("budget",), recipe.get("budget"), BUDGET_KEYS),
        (("calibration",), recipe.get("calibration"), CALIBRATION_KEYS),
        (("finetune",), recipe.get("finetune"), FINETUNE_KEYS),
        (("limits",), recipe.get("limits"), LIMIT_KEYS),
    ]
    if isinstance(rules, list):
        sections += [(("rules", k), rule, RULE_KEYS) for k, rule in enumerate(rules)]
    return sections


def _strange_keys(sections: Iterable[Section]) -> Iterator[Problem]:
    for path, section, known in sections:
        for key in section if isinstance(section, Mapping) else ():
            here = (*path, str(key))
            if key not in known:
                cure = nearest(key, known) or f" Known here: {', '.join(known)}."
                yield Problem(here, f"unknown key.{cure}")


def _translated(error: Mapping[str, Any], missing: Mapping[str, str]) -> Problem:
    """One of pydantic's errors as a problem in this program's words."""
    path = tuple(error["loc"])
    if ("task", "options") in pairwise(path):  # they stand beside the name
        place = path.index("options")
        path = (*path[:place], *path[place + 1 :])
    match error["type"]:
        case "value_error":
            return Problem(path, str(error["ctx"]["error"]))
        case "missing":
            return Problem(path, f"missing. {missing[str(path[-1])]}")
        case _:  # single values have readers of their own, so only a section is left to be wrong
            return Problem(path, f"expected keys with values, got {described(error['input'])}.")
