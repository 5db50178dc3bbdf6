"""Reads the file of a manifest: what it asks for and its jobs, or every problem at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from ttcompress.errors import RecipeError
from ttcompress.recipe.loading import yaml_file
from ttcompress.recipe.manifest import (
    VERSION,
    Exclusion,
    JobEntry,
    Manifest,
    Matrix,
    ModelEntry,
    Output,
    Tolerance,
)
from ttcompress.recipe.problems import render
from ttcompress.recipe.validation import LIMIT_KEYS, Section, made_of
from ttcompress.recipe.yaml_text import read_yaml
from ttcompress.workflows.batch_job import BatchJob
from ttcompress.workflows.matrix import jobs_of

_MANIFEST = TypeAdapter(Manifest)
_EXAMPLE = (
    "A small manifest is `version: 1` and"
    " `matrix: {models: [models/*.pt], recipes: [balanced, small]}`."
)
_MISSING = {
    "version": f"Write `version: {VERSION}`.",
    "models": "Write paths or globs, for example `models: [models/*.pt]`.",
    "recipes": "Write shipped names or files, for example `recipes: [balanced, small]`.",
    "path": "Write a model's path or a glob, for example `path: models/*.pt`.",
    "recipe": "Write a shipped name or a file, for example `recipe: small`.",
    "name": "Write which task, for example `name: language-model`.",
}


def read_manifest(path: Path) -> tuple[Manifest, tuple[BatchJob, ...]]:
    """Read a manifest, and find the models and recipes that it names.

    Raises:
        InputError: there is no such file, or it is a folder.
        RecipeError: every problem, with its key and line.
        TTCompressError: the file cannot be read.
    """
    document = read_yaml(yaml_file(path, "manifest"), "manifest")
    manifest = made_of(
        document, str(path), _MANIFEST.validate_python, _sections, _MISSING, _EXAMPLE
    )
    jobs, problems = jobs_of(manifest, path.resolve().parent)
    if problems:
        raise RecipeError(render(str(path), problems, document.lines, {}))
    return manifest, jobs


def _sections(manifest: Mapping[Any, Any]) -> list[Section]:
    """The keys that a manifest has."""
    matrix = manifest.get("matrix")
    matrix = matrix if isinstance(matrix, Mapping) else {}
    lists: list[tuple[tuple[str, ...], object, tuple[str, ...]]] = [
        (("matrix", "models"), matrix.get("models"), _keys(ModelEntry)),
        (("matrix", "exclude"), matrix.get("exclude"), _keys(Exclusion)),
        (("jobs",), manifest.get("jobs"), _keys(JobEntry)),
    ]
    entries: list[Section] = [
        ((*path, k), entry, known)
        for path, items, known in lists
        if isinstance(items, list)
        for k, entry in enumerate(items)
    ]
    limits: list[Section] = [
        ((*path, "limits"), entry.get("limits"), LIMIT_KEYS)
        for path, entry, _ in [((), manifest, ()), *entries]
        if isinstance(entry, Mapping)
    ]
    return [
        ((), manifest, _keys(Manifest)),
        (("output",), manifest.get("output"), _keys(Output)),
        (("baseline",), manifest.get("baseline"), _keys(Tolerance)),
        (("matrix",), matrix, _keys(Matrix)),
        *entries,
        *limits,
    ]


def _keys(section: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(section))
