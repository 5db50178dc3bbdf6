"""Expands a manifest into jobs, every model under every recipe, and collects its problems.

Paths in a manifest are relative to its folder, in which the jobs run.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from typing import Any

from ttcompress.errors import TTCompressError
from ttcompress.hub import find_address, local_file
from ttcompress.recipe import Drop, Limits, Recipe, find_recipe, load_recipe, with_options
from ttcompress.recipe.manifest import Manifest, Matrix, ModelEntry
from ttcompress.recipe.problems import KeyPath, Problem
from ttcompress.system.files import model_stem
from ttcompress.workflows.batch_job import BatchJob
from ttcompress.workflows.limits import check_limits


def jobs_of(manifest: Manifest, folder: Path) -> tuple[tuple[BatchJob, ...], list[Problem]]:
    """List the jobs of a manifest in `folder`, in its order, and its problems.

    Nothing is written, and no model is opened, but one on the hub is downloaded. If there are
    problems, jobs are missing.
    """
    expansion = _Expansion(manifest, folder)
    jobs = tuple(expansion.jobs())
    expansion.check_outputs(jobs)
    if not jobs and not expansion.problems:
        cure = "Write `matrix:` with models and recipes, or `jobs:`."
        expansion.problems.append(Problem((), f"it has no jobs.\n{cure}"))
    return jobs, expansion.problems


@dataclass(frozen=True)
class _Model:
    """A model's file, what the model is called, and the folder or the owner it came from."""

    path: Path
    stem: str
    folder: str


@dataclass(frozen=True)
class _Pair:
    """A model and a recipe for it; `place` is the key in the manifest that pairs them."""

    place: KeyPath
    entry: ModelEntry
    model: _Model
    recipe: str


class _Expansion:
    """Turns entries of a manifest into jobs, collecting problems."""

    def __init__(self, manifest: Manifest, folder: Path) -> None:
        self.manifest, self.folder = manifest, folder
        self.problems: list[Problem] = []
        self.recipes: dict[str, Recipe | None] = {}

    def jobs(self) -> Iterator[BatchJob]:
        matrix = self.manifest.matrix
        pairs = [*self._matrix(matrix)] if matrix is not None else []
        for k, entry in enumerate(self.manifest.jobs):
            self._load(entry.recipe, ("jobs", k, "recipe"))
            models = self._models(entry, ("jobs", k))
            pairs += [_Pair(("jobs", k), entry, model, entry.recipe) for model in models]
        for pair in pairs:
            if (recipe := self.recipes[pair.recipe]) is not None:
                yield from self._job(pair, recipe)

    def check_outputs(self, jobs: tuple[BatchJob, ...]) -> None:
        """Refuse two jobs that write the same file, and one that writes over a model."""
        models = {job.model: job for job in jobs}
        first: dict[Path, BatchJob] = {}
        for job in jobs:
            other = first.setdefault(job.output, job)
            if other is not job:
                self._problem(
                    ("output",),
                    f"{other.model} under {other.recipe_name} and {job.model} under "
                    f"{job.recipe_name} would both be written to {job.output.name}."
                    "\nMake their names differ in `output.name`, for example with {folder}.",
                )
            if job.output in models:
                self._problem(
                    ("output",),
                    f"{job.output} is one of the models, but a result would be written there."
                    "\nChoose another folder for the results: `output.folder`.",
                )

    def _matrix(self, matrix: Matrix) -> Iterator[_Pair]:
        for k, name in enumerate(matrix.recipes):
            self._load(name, ("matrix", "recipes", k))
        used: set[int] = set()
        for k, entry in enumerate(matrix.models):
            place = ("matrix", "models", k)
            for model, name in product(self._models(entry, place), matrix.recipes):
                out = [
                    n
                    for n, one in enumerate(matrix.exclude)
                    if fnmatchcase(model.stem, one.model)
                    and fnmatchcase(Path(name).stem, one.recipe)
                ]
                used.update(out)
                if not out:
                    yield _Pair(place, entry, model, name)
        for n in sorted(set(range(len(matrix.exclude))) - used):
            fact = "excludes nothing: no model and recipe of the matrix have these names."
            self._problem(("matrix", "exclude", n), f"{fact} Correct it, or remove it.")

    def _models(self, entry: ModelEntry, place: KeyPath) -> list[_Model]:
        try:
            if (address := find_address(entry.path)) is not None:
                owner = address.repository.partition("/")[0]
                return [_Model(local_file(entry.path), address.stem, owner)]
        except TTCompressError as error:
            self._problem((*place, "path"), str(error))
            return []
        found = sorted(glob.glob(entry.path, root_dir=self.folder, recursive=True))
        files = [path for name in found if (path := self.folder / name).is_file()]
        if not files:
            fact = "is a folder, but a model is a file." if found else "there is no such file."
            self._problem((*place, "path"), f"{entry.path}: {fact}\nYou are in {self.folder}.")
        return [_Model(path, model_stem(path), path.parent.name) for path in files]

    def _load(self, name: str, place: KeyPath) -> None:
        if name not in self.recipes:
            self.recipes[name] = None
            try:
                self.recipes[name] = load_recipe(find_recipe(name, self.folder))
            except TTCompressError as error:
                self._problem(place, str(error))

    def _job(self, pair: _Pair, recipe: Recipe) -> Iterator[BatchJob]:
        limits = _given(self.manifest.limits) | _given(pair.entry.limits)
        task = pair.entry.task or self.manifest.task
        try:
            chosen = with_options(recipe, task=task, key=pair.entry.key, **limits)
            check_limits(chosen)
        except TTCompressError as error:
            self._problem(pair.place, f"with the recipe {pair.recipe}: {error}")
            return
        model_name, recipe_name = pair.model.stem, Path(pair.recipe).stem
        name = self.manifest.output.name.format(
            model=model_name,
            recipe=recipe_name,
            format=chosen.format,
            folder=pair.model.folder,
        )
        output = (self.folder / self.manifest.output.folder / name).resolve()
        yield BatchJob(pair.model.path, chosen, output, self.folder, model_name, recipe_name)

    def _problem(self, place: KeyPath, message: str) -> None:
        self.problems.append(Problem(place, message))


def _given(limits: Limits | None) -> dict[str, Any]:
    """The limits that are set, by the names of options."""
    if limits is None:
        return {}
    values = {field.name: getattr(limits, field.name) for field in fields(limits)}
    return {
        name: value.written if isinstance(value, Drop) else value
        for name, value in values.items()
        if value is not None
    }
