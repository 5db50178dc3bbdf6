"""A recipe and command-line options come in; the recipe in force and its plain form go out."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any, TypedDict, Unpack

from ttcompress.planning.formats import is_whole
from ttcompress.recipe.problems import KeyPath
from ttcompress.recipe.schema import Recipe
from ttcompress.recipe.training import TaskChoice
from ttcompress.recipe.units import Drop, parse_format
from ttcompress.recipe.validation import BUDGET_KEYS, LIMIT_KEYS, validated
from ttcompress.recipe.yaml_text import Document


class Options(TypedDict, total=False):
    """Options of the command line that a recipe has a key for; None is an option not given."""

    format: str | None
    store: str | None
    rank: int | None
    tolerance: float | None
    factor: float | None
    size: int | str | None
    params: int | None
    multiply_adds: float | None
    drop: float | str | None
    seed: int | None
    key: str | None
    max_drop: float | str | None
    min_factor: float | None
    max_size: int | str | None
    min_multiply_adds: float | None
    task: str | TaskChoice | None
    finetune: bool | None
    calibrate: int | None
    calibration_data: str | None


_CALIBRATION_KEYS = {"calibrate": "batches", "calibration_data": "data"}


def with_options(recipe: Recipe, **options: Unpack[Options]) -> Recipe:
    """The recipe with each option in place of the key of its name; `text` stays as written.

    Any budget option replaces the whole budget. `format` means what it says: a rule of another
    train format loses its own, rules of format dense and keep stay. A task's name keeps the options
    that the recipe has for that same task; a `TaskChoice` brings its own. `finetune` of True is the
    recipe's own block, or the defaults where it has none; False is no fine-tuning.

    Raises:
        RecipeError: an option is wrong, or does not fit the recipe; the message names the option.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if not given:
        return recipe
    flags = {_key_path(name): f"--{name.replace('_', '-')}" for name in given}
    document = Document(_overlaid(effective(recipe), given))
    return validated(document, f"recipe with {' '.join(flags.values())}", recipe.text, flags)


def effective(recipe: Recipe) -> dict[str, Any]:
    """Every key as it is in force, in plain JSON values; reading it gives an equal recipe.

    >>> from ttcompress.recipe import parse_recipe
    >>> effective(parse_recipe("{version: 1, budget: {tolerance: 0.1}}"))["budget"]
    {'tolerance': 0.1}
    """
    plain: dict[str, Any] = _plain(recipe)
    del plain["text"]
    return {name: value for name, value in plain.items() if value not in ({}, [])}


def _plain(value: Any) -> Any:
    if isinstance(value, Drop):
        return value.written
    if isinstance(value, TaskChoice):
        return {"name": value.name} | {name: _plain(item) for name, item in value.options}
    if is_dataclass(value):
        items = ((field.name, getattr(value, field.name)) for field in fields(value))
        return {name: _plain(item) for name, item in items if item is not None}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _key_path(option: str) -> KeyPath:
    if option in BUDGET_KEYS:
        return ("budget", option)
    if option in LIMIT_KEYS:
        return ("limits", option)
    if option in _CALIBRATION_KEYS:
        return ("calibration", _CALIBRATION_KEYS[option])
    return ("task", "name") if option == "task" else (option,)


def _overlaid(recipe: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """A plain recipe with options laid over it."""
    budget = {name: value for name, value in given.items() if name in BUDGET_KEYS}
    limits = {name: value for name, value in given.items() if name in LIMIT_KEYS}
    shown = {key: given[name] for name, key in _CALIBRATION_KEYS.items() if name in given}
    apart = {*budget, *limits, *_CALIBRATION_KEYS}
    result = recipe | {name: value for name, value in given.items() if name not in apart}
    if budget:
        result["budget"] = budget
    if limits:
        result["limits"] = recipe.get("limits", {}) | limits
    if shown:
        result["calibration"] = recipe.get("calibration", {}) | shown
    if "task" in given:
        result["task"] = _chosen(given["task"], recipe.get("task", {}))
    if given.get("finetune") is True:
        result["finetune"] = recipe.get("finetune", True)
    if "format" in given:
        result["format"] = parse_format(given["format"])
        result["rules"] = [_of_any_train(rule) for rule in recipe.get("rules", [])]
    return result


def _chosen(task: str | TaskChoice, before: dict[str, Any]) -> dict[str, Any]:
    """A task by itself, or by name with the options it had before."""
    if isinstance(task, TaskChoice):
        chosen: dict[str, Any] = _plain(task)
        return chosen
    return before if before.get("name") == task else {"name": task}


def _of_any_train(rule: dict[str, Any]) -> dict[str, Any]:
    """A rule without its train format; dense and keep are no trains and stay."""
    return (
        rule
        if is_whole(rule.get("format"))
        else {name: value for name, value in rule.items() if name != "format"}
    )
