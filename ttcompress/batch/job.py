"""One model under one recipe as a value, and the key that says whether it was done before."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ttcompress.plain_json import read_json
from ttcompress.recipe import Recipe, effective


@dataclass(frozen=True)
class Job:
    """One model under one recipe, and the file its artifact goes to.

    `folder` is where relative paths in the recipe start. Every path is absolute; no two jobs have
    the same `output`.
    """

    model: Path
    recipe: Recipe
    output: Path
    folder: Path
    model_name: str
    recipe_name: str

    @property
    def name(self) -> str:
        """As people call it: `charlm under small`."""
        return f"{self.model_name} under {self.recipe_name}"


def job_keys(jobs: Sequence[Job], mixed_precision: str = "no") -> dict[Job, str]:
    """A hash of all that a job's result depends on; each file is read once.

    That is the model, the recipe as written and as in force, the files that its task and its
    calibration name, the versions of ttcompress, torch and Python, and of a fine-tuning its
    precision.
    """
    digest = cache(_digest)
    ran_on = {name: version(name) for name in ("ttcompress", "torch")}
    ran_on["python"] = platform.python_version()
    keys = {}
    for job in jobs:
        facts = {
            "ran_on": ran_on,
            "model": [digest(path) for path in _model_files(job.model)],
            "text": job.recipe.text,
            "recipe": effective(job.recipe),
            "precision": mixed_precision if job.recipe.finetune else "no",
            "data": {name: [digest(path) for path in _files(job, name)] for name in _named(job)},
        }
        keys[job] = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return keys


def file_digest(path: Path) -> str:
    """The sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(path: Path) -> str:
    try:
        if path.is_file():  # a pipe or a device may never end
            return file_digest(path)
    except (OSError, ValueError):
        pass
    return "unreadable"  # the job says so itself, and no result of it is kept


def _model_files(path: Path) -> Iterator[Path]:
    """A model's file, and the shards where it is an index of them."""
    yield path
    if path.suffix == ".json" and path.is_file():
        try:
            index: Any = read_json(path.read_bytes())
            shards = set(index["weight_map"].values())
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return  # no index: the job says so itself
        yield from (path.parent / str(shard) for shard in sorted(shards, key=str))


def _named(job: Job) -> Iterator[str]:
    """Whatever in a recipe may name a file: the task, its options, calibration data."""
    if job.recipe.task is not None:
        place, _, _ = job.recipe.task.name.rpartition(":")
        yield place
        for _, value in job.recipe.task.options:
            values = value if isinstance(value, tuple) else (value,)
            yield from (one for one in values if isinstance(one, str))
    if job.recipe.calibration is not None and job.recipe.calibration.data is not None:
        yield job.recipe.calibration.data


def _files(job: Job, name: str) -> list[Path]:
    """The files behind a name; a task's own file may import what lies beside it."""
    if not name:
        return []
    path = job.folder / name
    try:
        if path.is_dir():
            return sorted(inner for inner in path.rglob("*") if inner.is_file())
        if path.is_file():
            return sorted(path.parent.glob("*.py")) if path.suffix == ".py" else [path]
    except OSError:  # text that is no path at all: too long, for example
        pass
    return []
