"""The manifest as frozen dataclasses: plain mappings come in through pydantic, checked values out.

Keys that recipes have too (`task`, `limits`) are read as recipes read them.
"""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from string import Formatter
from typing import Annotated, Final

from pydantic import BeforeValidator
from pydantic.dataclasses import dataclass

from ttcompress.errors import RecipeError
from ttcompress.recipe import Drop, Limits, TaskChoice, parse_drop
from ttcompress.recipe.readers import CONFIG, reader
from ttcompress.recipe.training import named_task
from ttcompress.recipe.units import parse_count, parse_text
from ttcompress.recipe.wording import described

VERSION: Final = 1

NAME_FIELDS = ("model", "recipe", "format", "folder")
"""What the name of an output may hold in braces."""


def _version(value: object) -> int:
    version = parse_count(value)
    if version != VERSION:
        raise RecipeError(
            f"the manifest is of version {version}, and this program reads version {VERSION}."
            f"\nUpdate ttcompress, or write version: {VERSION}."
        )
    return version


def _name(value: object) -> str:
    """The template of a file's name."""
    text = parse_text(value)
    try:
        used = [name for _, name, _, _ in Formatter().parse(text) if name is not None]
    except ValueError as error:
        raise RecipeError(f"{text!r} is no name: {error}.") from error
    known = ", ".join(f"{{{name}}}" for name in NAME_FIELDS)
    for name in used:
        if name not in NAME_FIELDS:
            raise RecipeError(f"{text!r} holds {{{name}}}. Known here: {known}.")
    if Path(text).name != text:
        raise RecipeError(f"{text!r} is no file's name. Put folders into `output.folder`.")
    return text


def _listed(value: object) -> object:
    if not isinstance(value, list | tuple):
        raise ValueError(f"expected a list, got {described(value)}.")
    return value


def _path_alone(value: object) -> object:
    return {"path": value} if isinstance(value, str) else value


def _folder_alone(value: object) -> object:
    return {"folder": value} if isinstance(value, str) else value


_Text = Annotated[str, reader(parse_text, required=True)]
_MaybeText = Annotated[str | None, reader(parse_text)]
_Task = Annotated[TaskChoice | None, BeforeValidator(named_task)]
_Drop = Annotated[Drop, reader(parse_drop)]


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class ModelEntry:
    """Models by their path or by a glob, and what holds for them under every recipe."""

    path: _Text
    task: _Task = None
    key: _MaybeText = None
    limits: Limits | None = None


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class JobEntry(ModelEntry):
    """Models under one recipe, beside the matrix."""

    recipe: _Text


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class Exclusion:
    """Pairs of the matrix to leave out: globs on the names of models and of recipes."""

    model: _Text = "*"
    recipe: _Text = "*"


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class Matrix:
    """Every model under every recipe, but for what is excluded."""

    models: Annotated[
        tuple[Annotated[ModelEntry, BeforeValidator(_path_alone)], ...], BeforeValidator(_listed)
    ]
    recipes: Annotated[tuple[_Text, ...], BeforeValidator(_listed)]
    exclude: Annotated[tuple[Exclusion, ...], BeforeValidator(_listed)] = ()


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class Output:
    """Where artifacts go, and how they are named: see `NAME_FIELDS`."""

    folder: _Text = "."
    name: Annotated[str, reader(_name)] = "{model}.{recipe}.safetensors"


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class Tolerance:
    """How much worse than the baseline a result may be: of the value there, or in its own unit."""

    metric: _Drop = field(default=Drop(0.01, relative=True))
    size: _Drop = field(default=Drop(0.01, relative=True))


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class Manifest:
    """Everything a batch is asked for; every path in it is relative to the manifest's folder.

    `task` and `limits` stand in place of those of a recipe, and a model's own in place of these.
    """

    version: Annotated[int, reader(_version)]
    output: Annotated[Output, BeforeValidator(_folder_alone)] = Output()
    task: _Task = None
    limits: Limits | None = None
    baseline: Tolerance = Tolerance()
    matrix: Matrix | None = None
    jobs: Annotated[tuple[JobEntry, ...], BeforeValidator(_listed)] = ()
