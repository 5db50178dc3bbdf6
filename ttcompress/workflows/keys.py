"""Computes the key of a result, a hash of all that it depends on: an equal key means reuse."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

from ttcompress.recipe import Recipe, effective
from ttcompress.system.files import file_digest


def readable_digest(path: Path) -> str:
    """The SHA-256 of a file, or "unreadable": the error is left to whoever needs the file."""
    try:
        if path.is_file():  # a pipe or a device may never end
            return file_digest(path)
    except (OSError, ValueError):
        pass
    return "unreadable"


def result_key(
    model: str | Sequence[str],
    recipe: Recipe,
    folder: Path,
    precision: str = "no",
    digest: Callable[[Path], str] = readable_digest,
) -> str:
    """Hash all that a result depends on.

    That is the model, the recipe as written and in effect, the files named by its task and
    calibration, the versions of ttcompress, torch and Python, and the precision of fine-tuning.

    Args:
        model: the hash of the model's file, or of each of its files.
        recipe: how it is compressed.
        folder: where relative paths in the recipe start.
        precision: for fine-tuning.
        digest: hashes a file; pass a cached function when files are shared by several keys.
    """
    ran_on = {name: version(name) for name in ("ttcompress", "torch")}
    facts = {
        "ran_on": ran_on | {"python": platform.python_version()},
        "model": model,
        "text": recipe.text,
        "recipe": effective(recipe),
        "precision": precision if recipe.finetune else "no",
        "data": {name: list(map(digest, _files(folder, name))) for name in _named(recipe)},
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _named(recipe: Recipe) -> Iterator[str]:
    """Whatever in a recipe may name a file: the task, its options, the calibration data."""
    if recipe.task is not None:
        place, _, _ = recipe.task.name.rpartition(":")
        yield place
        for _, value in recipe.task.options:
            values = value if isinstance(value, tuple) else (value,)
            yield from (one for one in values if isinstance(one, str))
    if recipe.calibration is not None and recipe.calibration.data is not None:
        yield recipe.calibration.data


def _files(folder: Path, name: str) -> list[Path]:
    """The files behind a name; a Python file may import its neighbours, so those count too."""
    if not name:
        return []
    path = folder / name
    try:
        if path.is_dir():
            return sorted(inner for inner in path.rglob("*") if inner.is_file())
        if path.is_file():
            return sorted(path.parent.glob("*.py")) if path.suffix == ".py" else [path]
    except OSError:  # not a path at all: too long, for example
        pass
    return []
