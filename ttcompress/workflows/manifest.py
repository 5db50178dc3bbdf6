"""Reads a manifest of a batch, and lists its jobs: `read_manifest`."""

from __future__ import annotations

from pathlib import Path

from ttcompress.errors import RecipeError
from ttcompress.recipe.loading import read_text
from ttcompress.recipe.manifest import VERSION, Manifest
from ttcompress.recipe.problems import render
from ttcompress.recipe.sections import read_document
from ttcompress.recipe.yaml_text import read_yaml
from ttcompress.workflows.batch_job import BatchJob
from ttcompress.workflows.matrix import jobs_of

_EXAMPLE = (
    f"A small manifest is `version: {VERSION}` and"
    " `matrix: {models: [models/*.pt], recipes: [balanced, small]}`."
)


def read_manifest(path: Path) -> tuple[Manifest, tuple[BatchJob, ...]]:
    """Read a manifest, and find the models and recipes that it names.

    Raises:
        InputError: there is no such file, or it is a folder.
        RecipeError: every problem, with its key and line.
        TTCompressError: the file cannot be read.
    """
    document = read_yaml(read_text(path, "manifest"), "manifest")
    manifest = read_document(Manifest, document, str(path), _EXAMPLE)
    jobs, problems = jobs_of(manifest, path.resolve().parent)
    if problems:
        raise RecipeError(render(str(path), problems, document.lines))
    return manifest, jobs
