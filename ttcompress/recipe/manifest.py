"""The manifest of a batch: its keys, declared and read as those of a recipe.

`ttcompress.workflows.manifest` reads one and finds the models and recipes that it names.
"""

from __future__ import annotations

from pathlib import Path
from string import Formatter
from typing import Final

from ttcompress.errors import RecipeError
from ttcompress.recipe.schema import TASK, Limits, TaskChoice
from ttcompress.recipe.sections import Section, declare, list_of, section_of, value
from ttcompress.recipe.values import DROP, TEXT, Drop, format_version, parse_text

VERSION: Final = 1

NAME_FIELDS = ("model", "recipe", "format", "folder")
"""What the name of an output may hold in braces."""


def _parse_name(value: object) -> str:
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


_ONE_PERCENT: Final = Drop(0.01, relative=True)
_NAME: Final = value(_parse_name, "text with fields in braces", TEXT.schema)


class ModelEntry(Section):
    """Models by their path or by a glob, and what holds for them under every recipe."""

    path: str = declare(
        TEXT,
        "A model's path, or a glob.",
        missing="Write a model's path or a glob, for example `path: models/*.pt`.",
    )
    task: TaskChoice | None = declare(TASK, "In place of the manifest's task.")
    key: str | None = declare(TEXT, "Which state dict, where the file holds several.")
    limits: Limits | None = declare(section_of(Limits), "In place of the manifest's limits.")


class JobEntry(ModelEntry):
    """Models under one recipe, beside the matrix."""

    recipe: str = declare(
        TEXT,
        "A shipped recipe's name, or a file.",
        missing="Write a shipped name or a file, for example `recipe: small`.",
    )


class Exclusion(Section):
    """Pairs of the matrix to leave out."""

    model: str = declare(TEXT, "A glob on the names of models.", default="*")
    recipe: str = declare(TEXT, "A glob on the names of recipes.", default="*")


class Matrix(Section):
    """Every model under every recipe, but for what is excluded."""

    models: tuple[ModelEntry, ...] = declare(
        list_of(section_of(ModelEntry, short="path")),
        "Paths or globs, alone or with keys of their own.",
        missing="Write paths or globs, for example `models: [models/*.pt]`.",
    )
    recipes: tuple[str, ...] = declare(
        list_of(TEXT),
        "Shipped names or files.",
        missing="Write shipped names or files, for example `recipes: [balanced, small]`.",
    )
    exclude: tuple[Exclusion, ...] = declare(
        list_of(section_of(Exclusion)), "Pairs to leave out.", default=()
    )


class Output(Section):
    """Where artifacts go, and how they are named."""

    folder: str = declare(TEXT, "Folder of the artifacts.", default=".")
    name: str = declare(
        _NAME,
        "Name of an artifact, with {model}, {recipe}, {format} and {folder}.",
        default="{model}.{recipe}.safetensors",
    )


class Tolerance(Section):
    """How much worse than the baseline a result may be: of the value there, or in its own unit."""

    metric: Drop = declare(DROP, "How much the metric may worsen.", default=_ONE_PERCENT)
    size: Drop = declare(DROP, "How much the file may grow.", default=_ONE_PERCENT)


class Manifest(Section):
    """Everything a batch is asked for; every path in it is relative to the manifest's folder.

    `task` and `limits` stand in place of those of a recipe, and a model's own in place of these.
    """

    version: int = declare(
        format_version("manifest", VERSION),
        "Version of the manifest's format.",
        missing=f"Write `version: {VERSION}`.",
    )
    output: Output = declare(
        section_of(Output, short="folder"), "Where artifacts go, and their names.", default=Output()
    )
    task: TaskChoice | None = declare(TASK, "In place of the recipes' tasks.")
    limits: Limits | None = declare(section_of(Limits), "In place of the recipes' limits.")
    baseline: Tolerance = declare(
        section_of(Tolerance),
        "How much worse than --baseline a result may be.",
        default=Tolerance(),
    )
    matrix: Matrix | None = declare(section_of(Matrix), "Every model under every recipe.")
    jobs: tuple[JobEntry, ...] = declare(
        list_of(section_of(JobEntry)), "Single jobs, beside the matrix.", default=()
    )
