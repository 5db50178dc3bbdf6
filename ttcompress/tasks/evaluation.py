"""Measures a model on a task: `measure_metrics` loads its weights into the task's module."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ttcompress.errors import RecipeError, TTCompressError
from ttcompress.layers.evaluating import evaluating
from ttcompress.layers.reparametrised import make_plain
from ttcompress.layers.swap import prefix_cure
from ttcompress.model.protocol import Model
from ttcompress.model.report import Change
from ttcompress.system.text import shape_text
from ttcompress.tasks.protocol import Task

Options = Mapping[str, Any] | None
Metrics = dict[str, float]
Comparison = dict[str, Change]

MAX_LISTED = 6


def compare_metrics(task: Task, before: Metrics, after: Metrics) -> Comparison:
    """Each metric before and after, its drop (how much it worsened), and its direction."""
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


def load_model(task: Task, model: Model) -> nn.Module:
    """Build the task's dense model with the weights of a checkpoint or a compressed model.

    Raises:
        RecipeError: the task's model and the file have different tensors.
    """
    return load_tensors(task, model.state_dict())


def load_tensors(task: Task, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Build the task's dense model with the tensors of a model, by their names.

    Raises:
        RecipeError: the task's model has others.
    """
    covers = getattr(task, "covers", None)
    if covers is not None:
        tensors = {name: tensor for name, tensor in tensors.items() if name in covers}
    built = make_plain(task.build(), tensors)
    places, problems = built.state_dict(), []
    for name in dict.fromkeys([*tensors, *places]):
        if name not in places:
            problems.append(f"{name} is only in the file")
        elif name not in tensors:
            problems.append(f"{name} is only in the task's model")
        elif places[name].shape != tensors[name].shape:
            found, built_as = (shape_text(t.shape) for t in (tensors[name], places[name]))
            problems.append(f"{name} is {found} in the file but {built_as} in the task's model")
    if problems:
        cure = prefix_cure(places, tensors) or (
            "Build the architecture that was saved to the file, without wrappers."
        )
        raise RecipeError(
            f"task {task.name}: the model it builds does not match the file: "
            f"{'; '.join(problems[:MAX_LISTED])}. {cure}"
        )
    built.load_state_dict(tensors)
    return built


def measure_metrics(task: Task, model: Model) -> Metrics:
    """Every metric of a model, the counting one first.

    Raises:
        RecipeError: the model does not fit, or the task returned other metrics than it declares.
        TTCompressError: a metric is not finite.
    """
    return measure_module(task, load_model(task, model))


def measure_module(task: Task, model: nn.Module) -> Metrics:
    """Every metric of a module, checked against those the task declares.

    Raises:
        RecipeError: a metric is missing or extra.
        TTCompressError: a metric is not finite.
    """
    with evaluating(model):
        found = task.evaluate(model)
    promised = [metric.name for metric in task.metrics]
    if not promised or set(found) != set(promised):
        raise RecipeError(
            f"task {task.name}: evaluate returned {', '.join(found) or 'nothing'}, but the task's "
            f"metrics are {', '.join(promised) or 'none'}. Return each metric once, by name."
        )
    for name, value in found.items():
        if not math.isfinite(value):
            raise TTCompressError(
                f"task {task.name}: {name} is {value}, which is not a finite number. Check the "
                "data, the metric, and the model's weights with `ttcompress inspect`."
            )
    return {name: float(found[name]) for name in promised}
