"""A document of plain values comes in; a `Recipe`, or one error with every problem, goes out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

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
    problems, recipe = [*document.problems], None
    if isinstance(document.value, Mapping):
        problems += _strange_keys(document.value)
        try:
            recipe = _RECIPE.validate_python(
                {**document.value, "text": text},
                context={"format": document.value.get("format", "mps")},
            )
        except ValidationError as error:
            problems += map(_translated, error.errors())
    elif not problems:
        problems.append(_no_recipe(document.value))
    if recipe is None or problems:
        raise RecipeError(render(place, problems, document.lines, options or {}))
    return recipe


def _no_recipe(value: object) -> Problem:
    fact = "there is nothing in it." if value is None else f"expected keys, got {described(value)}."
    return Problem((), f"{fact}\nA small recipe is `version: 1` and `budget: {{factor: 8}}`.")


def _strange_keys(recipe: Mapping[Any, Any]) -> Iterator[Problem]:
    """Keys that no recipe has."""
    rules = recipe.get("rules")
    sections: list[tuple[KeyPath, object, tuple[str, ...]]] = [
        ((), recipe, RECIPE_KEYS),
        (("budget",), recipe.get("budget"), BUDGET_KEYS),
        (("calibration",), recipe.get("calibration"), CALIBRATION_KEYS),
        (("finetune",), recipe.get("finetune"), FINETUNE_KEYS),
        (("limits",), recipe.get("limits"), LIMIT_KEYS),
    ]
    if isinstance(rules, list):
        sections += [(("rules", k), rule, RULE_KEYS) for k, rule in enumerate(rules)]
    for path, section, known in sections:
        for key in section if isinstance(section, Mapping) else ():
            here = (*path, str(key))
            if key not in known:
                cure = nearest(key, known) or f" Known here: {', '.join(known)}."
                yield Problem(here, f"unknown key.{cure}")


def _translated(error: Mapping[str, Any]) -> Problem:
    """One of pydantic's errors as a problem in this program's words."""
    path = tuple(error["loc"])
    if path[:2] == ("task", "options"):  # in a recipe they stand beside the name
        path = ("task", *path[2:])
    match error["type"]:
        case "value_error":
            return Problem(path, str(error["ctx"]["error"]))
        case "missing":
            return Problem(path, f"missing. {_MISSING[str(path[-1])]}")
        case _:  # single values have readers of their own, so only a section is left to be wrong
            return Problem(path, f"expected keys with values, got {described(error['input'])}.")
