"""A model and a task enter; the task's metrics leave, of one model or before and after."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from ttcompress.errors import RecipeError, TTCompressError
from ttcompress.model.protocol import Model
from ttcompress.model.report import Change
from ttcompress.tasks.protocol import Task
from ttcompress.tasks.recurrent_task import measuring
from ttcompress.tasks.registry import make_task
from ttcompress.tasks.structure import structure_of

Options = Mapping[str, Any] | None
Metrics = dict[str, float]
Comparison = dict[str, Change]

MAX_LISTED = 6


def compared(task: Task, before: Metrics, after: Metrics) -> Comparison:
    """Each metric before and after, its drop, and its direction."""
    return {
        metric.name: {
            "before": before[metric.name],
            "after": after[metric.name],
            "drop": (before[metric.name] - after[metric.name])
            * (1 if metric.higher_is_better else -1),
            "higher_is_better": metric.higher_is_better,
        }
        for metric in task.metrics
    }


def task_for(model: Model, task: str | Task, options: Options = None) -> Task:
    """The task itself, or the one of that name built for a model.

    Raises:
        InputError, RecipeError: see `make_task`; or options were given beside a task.
    """
    if isinstance(task, str):
        return make_task(task, structure_of(model), options)
    if options:
        raise RecipeError(
            f"task {task.name}: the options {', '.join(options)} came too late, it is built "
            "already. Build it with them, or give its name."
        )
    return task


def loaded_model(task: Task, model: Model) -> nn.Module:
    """The task's dense model with a checkpoint's or a compressed model's weights in it.

    Raises:
        RecipeError: the task's model and the file have different tensors.
    """
    built = task.build()
    tensors = model.state_dict()
    problems = list(_mismatches(built.state_dict(), tensors))
    if problems:
        raise RecipeError(
            f"task {task.name}: the model it builds is not the one in the file: "
            f"{'; '.join(problems[:MAX_LISTED])}. "
            "Build the architecture that the file was saved from, without wrappers."
        )
    built.load_state_dict(tensors)
    return built


def _mismatches(built: Mapping[str, Tensor], file: Mapping[str, Tensor]) -> Iterator[str]:
    for name in dict.fromkeys([*file, *built]):
        if name not in built:
            yield f"{name} is only in the file"
        elif name not in file:
            yield f"{name} is only in the task's model"
        elif built[name].shape != file[name].shape:
            shapes = (" x ".join(map(str, t.shape)) for t in (file[name], built[name]))
            yield "{} is {} in the file and {} in the task's model".format(name, *shapes)


def measured(task: Task, model: Model) -> Metrics:
    """Every metric of a model, the counting one first.

    Raises:
        RecipeError: the model does not fit, or the task returned other metrics than its own.
        TTCompressError: a metric is not finite.
    """
    return checked_metrics(task, loaded_model(task, model))


def checked_metrics(task: Task, model: nn.Module) -> Metrics:
    """What `task.evaluate` gives, held to what the task promised.

    Raises:
        RecipeError: a metric is missing or extra.
        TTCompressError: a metric is not finite.
    """
    with measuring(model):
        found = task.evaluate(model)
    promised = [metric.name for metric in task.metrics]
    if not promised or set(found) != set(promised):
        raise RecipeError(
            f"task {task.name}: evaluate gave {', '.join(found) or 'nothing'} and its metrics are "
            f"{', '.join(promised) or 'none'}. Return each metric once, by its name."
        )
    for name, value in found.items():
        if not math.isfinite(value):
            raise TTCompressError(
                f"task {task.name}: {name} is {value}: the model's outputs are not finite. "
                "Check its weights: ttcompress inspect."
            )
    return {name: float(found[name]) for name in promised}
