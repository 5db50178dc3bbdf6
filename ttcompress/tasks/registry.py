"""Finds a task by the name a user gives (`find_task`), and builds it for a model (`make_task`)."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from ttcompress.errors import InputError, RecipeError, TTCompressError
from ttcompress.layers.structure import Structure, structure_of
from ttcompress.model.protocol import Model
from ttcompress.tasks.charlm import CharLM
from ttcompress.tasks.forecast import Forecast
from ttcompress.tasks.forecaster import Forecaster
from ttcompress.tasks.highlighter import Highlighter
from ttcompress.tasks.language_model import LanguageModel
from ttcompress.tasks.own import OwnTask, blaming
from ttcompress.tasks.protocol import Task, TaskFactory, kinds_of
from ttcompress.tasks.sequence_labels import Classifier, Tagger

ENTRY_POINTS = "ttcompress.tasks"

BUILT_IN: dict[str, TaskFactory] = {
    LanguageModel.name: LanguageModel,
    Tagger.name: Tagger,
    Classifier.name: Classifier,
    Forecast.name: Forecast,
    CharLM.name: CharLM,
    Highlighter.name: Highlighter,
    Forecaster.name: Forecaster,
}

TEMPLATE = Path(__file__).with_name("template.txt")
"""A file to begin a task with."""

_MEMBERS = "name metrics batches_per_epoch build train_batches outputs loss evaluate"
MEMBERS = tuple(_MEMBERS.split())
"""What every `Task` has."""

MEASURING = ("name", "metrics", "build", "evaluate")
"""What measuring alone needs."""

WHAT_A_TASK_IS = (
    "A task is a class that builds the model, feeds it and measures it: it needs "
    f"{', '.join(MEMBERS)}; see ttcompress.Task. For usual models there are the tasks "
    f"{', '.join(BUILT_IN)}."
)


@dataclass(frozen=True)
class KnownTask:
    """A task that can be named: what it is for, and its options."""

    name: str
    title: str
    options: tuple[str, ...]


def known_tasks() -> tuple[KnownTask, ...]:
    """The built-in tasks, and those that are installed.

    An installed one that cannot be imported is listed with the reason.
    """
    found = []
    for name in (*BUILT_IN, *(point.name for point in entry_points(group=ENTRY_POINTS))):
        try:
            factory = find_task(name)
        except TTCompressError as error:
            found.append(KnownTask(name, str(error), ()))
            continue
        title = (inspect.getdoc(factory) or "").partition("\n")[0]
        options = tuple(inspect.signature(factory).parameters)[1:]
        found.append(KnownTask(name, title, options))
    return tuple(found)


def find_task(name: str) -> TaskFactory:
    """The class or function that makes the task.

    Args:
        name: of a built-in task or an installed entry point of the group `ttcompress.tasks`;
            `file.py:Name`; or `package.module:Name`.

    Raises:
        InputError: no such file.
        RecipeError: nothing has the name, or its module cannot be imported.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    if name.endswith(".py") and os.path.isfile(name):  # C:\tasks\mine.py has a colon too
        raise RecipeError(f"task {name}: which one? Its classes are {_classes(_import(name))}.")
    if ":" in name:
        place, _, attribute = name.rpartition(":")
    else:
        installed = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
        if name not in installed:
            known = [*BUILT_IN, *installed]
            near = get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise RecipeError(
                f"task {name}: no such task.{hint} The tasks are {', '.join(known)}; name your own "
                "as file.py:Name or package.module:Name."
            )
        place, attribute = installed[name].module, installed[name].attr
    module = _import(place)
    factory: TaskFactory | None = getattr(module, attribute, None)
    if _is_module(factory):
        raise RecipeError(f"task {place}:{attribute}: is a model. {WHAT_A_TASK_IS}")
    if not callable(factory):
        raise RecipeError(
            f"task {place}:{attribute}: {place} has no class or function {attribute!r}. "
            f"Its classes are {_classes(module)}."
        )
    return factory


def _classes(module: ModuleType) -> str:
    own = [n for n, v in vars(module).items() if inspect.isclass(v) and not n.startswith("_")]
    return ", ".join(own) or "none"


def _is_module(found: object) -> bool:
    """Whether it is a module of torch, or a class of them, that is not a task as well."""
    kind = found if inspect.isclass(found) else type(found)
    return issubclass(kind, nn.Module) and not hasattr(kind, "train_batches")


def make_task(name: str, structure: Structure, options: Mapping[str, Any] | None = None) -> Task:
    """Build a task for a model.

    Raises:
        InputError: a file is missing.
        RecipeError: nothing has the name, an option is unknown or missing, or the model does not
            fit the task.
    """
    factory, options = find_task(name), options or {}
    _check_options(name, factory, options)
    if name in BUILT_IN:
        return factory(structure, **options)
    with blaming(f"task {name}"):
        task = factory(structure, **options)
    if _is_module(task):
        raise RecipeError(f"task {name}: gives a model. {WHAT_A_TASK_IS}")
    _check_members(task, name)
    kinds_of(task)  # refuse a wrong one before the work
    return OwnTask(task, name)


def _check_members(task: object, name: str, needed: Sequence[str] = MEMBERS) -> None:
    # Statically: asking how many batches there are may read all training data.
    missing = [m for m in needed if inspect.getattr_static(task, m, None) is None]
    if missing:
        raise RecipeError(f"task {name}: lacks {', '.join(missing)}. {WHAT_A_TASK_IS}")


def task_for(model: Model, task: str | Task, options: Mapping[str, Any] | None = None) -> Task:
    """The task itself, or the task of that name built for a model.

    Raises:
        InputError, RecipeError: see `make_task`; or options were given for a task already built.
    """
    if isinstance(task, str):
        return make_task(task, structure_of(model), options)
    if options:
        raise RecipeError(
            f"task {task.name}: is already built and cannot take the options {', '.join(options)}. "
            "Build it with them, or give its name instead."
        )
    if isinstance(task, OwnTask) or type(task) in BUILT_IN.values():
        return task
    _check_members(task, getattr(task, "name", type(task).__name__), MEASURING)
    return OwnTask(task, task.name)


def _import(place: str) -> ModuleType:
    """Import a module by its name or file; an error in a user's file is reported with its place."""
    is_file = place.endswith(".py")
    if is_file and not os.path.isfile(place):
        raise InputError(f"task {place}: no such file. Give a file; you are in {Path.cwd()}.")
    cure = "Correct it, or give file.py:Name or package.module:Name."
    with blaming(f"task {place}: cannot be imported", cure):
        return _import_file(Path(place)) if is_file else importlib.import_module(place)


_beside: set[str] = set()
"""Modules from the folder of the last task file: another task may have others of these names."""


def _import_file(path: Path) -> ModuleType:
    """Run a file as a separate module, which may import what is next to it."""
    path = path.resolve()
    digest = hashlib.sha256(str(path).encode()).hexdigest()
    name = f"ttcompress_task_{path.stem}_{digest[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look their module up there
    for other in _beside:
        sys.modules.pop(other, None)
    known = set(sys.modules)
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
        files = {n: getattr(sys.modules[n], "__file__", None) for n in sys.modules.keys() - known}
        _beside.clear()
        _beside.update(
            n for n, f in files.items() if f and path.parent in Path(f).resolve().parents
        )
    return module


def _check_options(name: str, factory: TaskFactory, options: Mapping[str, Any]) -> None:
    parameters = list(inspect.signature(factory).parameters.values())[1:]
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    known = {parameter.name: parameter for parameter in parameters}
    for option in options:
        if option not in known:
            near = get_close_matches(option, known, n=1)
            hint = f"Did you mean {near[0]}? " if near else ""
            raise RecipeError(
                f"task {name}: unknown option {option}. {hint}"
                f"Its options are {', '.join(known) or 'none'}."
            )
    missing = [n for n, p in known.items() if p.default is p.empty and n not in options]
    if missing:
        raise RecipeError(f"task {name}: needs the option {missing[0]}. Give `{missing[0]}: ...`.")
