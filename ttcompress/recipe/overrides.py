"""Applies options to a recipe, and writes the recipe that results as plain values.

Which options exist, and which key each replaces, is declared with the keys: see `Key.option`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from inspect import Parameter, signature
from typing import Any

from ttcompress.planning.formats import FORMATS, is_whole
from ttcompress.recipe.loading import EXAMPLE
from ttcompress.recipe.problems import Document, KeyPath
from ttcompress.recipe.schema import Recipe, TaskChoice
from ttcompress.recipe.sections import Key, Section, read_document
from ttcompress.recipe.values import Drop


def _overrides(section: type[Section], path: KeyPath = ()) -> Iterator[tuple[str, KeyPath, Key]]:
    for name, key in section.KEYS.items():
        here = (*path, name)
        if key.option:
            yield key.option.split()[0].removeprefix("--").replace("-", "_"), here, key
        if key.kind.section:
            yield from _overrides(key.kind.section, here)


OVERRIDES = {name: (path, key) for name, path, key in _overrides(Recipe)}
"""The key that each option replaces, with its path, by the option's name in Python."""


def with_options(recipe: Recipe, **options: Any) -> Recipe:
    """Return the recipe with the values of options in place of its own; `text` stays as written.

    Options are those of the command line, such as `factor=8, max_drop="1%"`; None means not given.
    Any budget option replaces the whole budget, and any one of calibration the whole calibration.
    `format` applies to every train: it replaces the formats of rules, except dense and keep. A
    task's name keeps the options that the recipe has for that same task; a `TaskChoice` brings new
    ones. `finetune=True` takes the recipe's own block, or the defaults if it has none; False turns
    fine-tuning off.

    Raises:
        RecipeError: an option is unknown, invalid, or does not fit the recipe; names the option.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if not given:
        return recipe
    paths = {name: OVERRIDES[name][0] if name in OVERRIDES else (name,) for name in given}
    plain = effective(recipe)
    if any(path[0] == "budget" for path in paths.values()):
        plain["budget"] = {}
    if any(path[0] == "calibration" for path in paths.values()):
        plain["calibration"] = {}  # its sources exclude each other
    if "format" in given:
        given["format"] = parse_format(given["format"])
        for rule in plain.get("rules", ()):
            if not is_whole(rule.get("format")):
                rule.pop("format", None)
    if given.get("finetune") is True:
        given["finetune"] = plain.get("finetune", True)
    if isinstance(task := given.pop("task", None), TaskChoice):
        plain["task"] = _plain(task)
    elif task is not None and plain.get("task", {}).get("name") != task:
        plain["task"] = {"name": task}
    for name, value in given.items():
        section: Any = plain
        for part in paths[name][:-1]:
            section = section.setdefault(part, {})
        section[paths[name][-1]] = value
    flags = {path: f"--{name.replace('_', '-')}" for name, path in paths.items()}
    place = f"recipe with {' '.join(flags.values())}"
    changed = read_document(Recipe, Document(plain), place, EXAMPLE, flags)
    return replace(changed, text=recipe.text)


with_options.__signature__ = signature(with_options).replace(  # type: ignore[attr-defined]
    parameters=[
        signature(with_options).parameters["recipe"],
        *(Parameter(name, Parameter.KEYWORD_ONLY, default=None) for name in OVERRIDES),
    ]
)


def parse_format(text: str) -> str:
    """Translate other names of a format, such as tensor-train; `Recipe` checks the result.

    >>> parse_format("tensor-train"), parse_format("mpo")
    ('mps', 'mpo')
    """
    aliases = {word: one.format for one in FORMATS.values() for word in one.aliases}
    return aliases.get(text.lower(), text)


def effective(recipe: Recipe) -> dict[str, Any]:
    """Every key with the value that applies, as plain JSON; reading it gives an equal recipe.

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
