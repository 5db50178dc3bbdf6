"""Declares the keys of a batch manifest, in the same way as those of a recipe.

`ttcompress.workflows.manifest` reads a manifest and finds the models and recipes that it names.
"""

from __future__ import annotations

from pathlib import Path
from string import Formatter
from typing import Final

from ttcompress.errors import RecipeError
from ttcompress.recipe.schema import KEY_HELP, TASK, Limits, TaskChoice
from ttcompress.recipe.sections import Section, declare, list_of, section_of, value
from ttcompress.recipe.values import DROP, TEXT, Drop, format_version, parse_text

VERSION: Final = 1

NAME_FIELDS = ("model", "recipe", "format", "folder")
"""Fields that the name of an output may use, in braces."""


def _parse_name(value: object) -> str:
    """Check the template of a file name."""
    text = parse_text(value)
    try:
        used = [name for _, name, _, _ in Formatter().parse(text) if name is not None]
    except ValueError as error:
        raise RecipeError(f"{text!r} is not a valid name: {error}.") from error
    known = ", ".join(f"{{{name}}}" for name in NAME_FIELDS)
    for name in used:
        if name not in NAME_FIELDS:
            raise RecipeError(f"{text!r} has the unknown field {{{name}}}. Use {known}.")
    if Path(text).name != text:
        raise RecipeError(f"{text!r} is not a file name. Put folders into `output.folder`.")
    return text


_ONE_PERCENT: Final = Drop(0.01, relative=True)
_NAME: Final = value(_parse_name, "text with fields in braces", TEXT.schema)


class ModelEntry(Section):
    """Models, given by a path or a glob, and what applies to them under every recipe."""

    path: str = declare(
        TEXT,
        "Path of a model, a glob, or an address on the hub, hf://user/name.",
        missing="Write the path of a model or a glob, for example `path: models/*.pt`.",
    )
    task: TaskChoice | None = declare(TASK, "Task of these models.  [the manifest's]")
    key: str | None = declare(TEXT, KEY_HELP)
    limits: Limits | None = declare(section_of(Limits), "Limits of these models.  [the manifest's]")


class JobEntry(ModelEntry):
    """Models to compress under one recipe, in addition to the matrix."""

    recipe: str = declare(
        TEXT,
        "Name of a shipped recipe, or a file.",
        missing="Write the name of a recipe or a file, for example `recipe: small`.",
    )


class Exclusion(Section):
    """Pairs of the matrix to leave out."""

    model: str = declare(TEXT, "Glob on the names of models.", default="*")
    recipe: str = declare(TEXT, "Glob on the names of recipes.", default="*")


class Matrix(Section):
    """Every model under every recipe, except for the pairs that are excluded."""

    models: tuple[ModelEntry, ...] = declare(
        list_of(section_of(ModelEntry, short="path")),
        "Paths or globs, or entries with further keys.",
        missing="Write paths or globs, for example `models: [models/*.pt]`.",
    )
    recipes: tuple[str, ...] = declare(
        list_of(TEXT),
        "Names of shipped recipes, or files.",
        missing="Write names of recipes or files, for example `recipes: [balanced, small]`.",
    )
    exclude: tuple[Exclusion, ...] = declare(
        list_of(section_of(Exclusion)), "Pairs to leave out.", default=()
    )


class Output(Section):
    """Where artifacts go, and how they are named."""

    folder: str = declare(TEXT, "Folder for the artifacts.", default=".")
    name: str = declare(
        _NAME,
        "Name of an artifact, with {model}, {recipe}, {format} and {folder}.",
        default="{model}.{recipe}.safetensors",
    )


class Tolerance(Section):
    """How much worse than the baseline a result may be: a part of its value, or in its own unit."""

    metric: Drop = declare(DROP, "How much the metric may worsen.", default=_ONE_PERCENT)
    size: Drop = declare(DROP, "How much the file may grow.", default=_ONE_PERCENT)


class Manifest(Section):
    """The models and recipes of a batch; every path in it is relative to the manifest's folder.

    `task` and `limits` replace those of a recipe, and a model's own replace these.
    """

    version: int = declare(
        format_version("manifest", VERSION),
        "Version of the manifest's format.",
        missing=f"Write `version: {VERSION}`.",
    )
    output: Output = declare(
        section_of(Output, short="folder"),
        "Where artifacts go, and how they are named.",
        default=Output(),
    )
    task: TaskChoice | None = declare(TASK, "Task of every model.  [the recipes']")
    limits: Limits | None = declare(section_of(Limits), "Limits of every result.  [the recipes']")
    baseline: Tolerance = declare(
        section_of(Tolerance),
        "How much worse than --baseline a result may be.",
        default=Tolerance(),
    )
    matrix: Matrix | None = declare(
        section_of(Matrix), "Models and recipes to combine: every model under every recipe."
    )
    jobs: tuple[JobEntry, ...] = declare(
        list_of(section_of(JobEntry)), "Single jobs, in addition to the matrix.", default=()
    )
