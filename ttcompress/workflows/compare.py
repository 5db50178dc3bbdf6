"""Compresses a model by every method at every factor, and measures all in the same way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import sqrt

import torch

from ttcompress.artifact import CompressedModel
from ttcompress.checkpoint import Checkpoint, ModelSource
from ttcompress.errors import PlanError
from ttcompress.layers.swap import Content, recurrent_layer
from ttcompress.model.weights import RecurrentStack
from ttcompress.planning.formats import FORMATS
from ttcompress.recipe import AnyRecipe
from ttcompress.results.comparison import Cell, Comparison, Row
from ttcompress.system.progress import Progress, silent
from ttcompress.system.threads import torch_threads
from ttcompress.system.timing import clock_for, timings
from ttcompress.tasks.evaluation import measure_metrics
from ttcompress.tasks.protocol import Task
from ttcompress.workflows.codec import code
from ttcompress.workflows.compress import build
from ttcompress.workflows.job import Data, Job, prepare
from ttcompress.workflows.methods import CODEC, METHODS, method_recipe

STEPS, SECONDS = 35, 0.3
"""The sequence length that is timed, and the seconds spent at each factor on all methods."""

MODELS = {name: one.cost_model for name, one in FORMATS.items() if one.cost_model}
"""The cost models: Murua et al. (2020), section 3, for one matrix and one time step."""


def compare(
    source: ModelSource | Checkpoint,
    factors: Sequence[float],
    recipe: AnyRecipe = None,
    *,
    task: Task | None = None,
    data: Data | None = None,
    key: str | None = None,
    on_row: Callable[[Comparison], None] = lambda found: None,
    progress: Progress = silent,
) -> Comparison:
    """Compress a model by every method at every factor, and measure all in the same way.

    Args:
        source: a checkpoint's file, a module or a state dict.
        factors: compression factors of the decomposed weights.
        recipe: weights, calibration, fine-tuning and task; its format and budget are ignored.
            Calibration applies to mps, mpo and auto only.
        task: measures the models, and trains them if the recipe fine-tunes; see `compress`.
        data: to calibrate on; see `compress`.
        key: which state dict to use if the file holds several; see `open_checkpoint`.
        on_row: called with what is known after each factor: an interrupt loses only the next one.
        progress: receives what is being done.

    Raises:
        TTCompressError: see `ttcompress.errors`.
    """
    job = prepare(source, recipe, task=task, data=data, key=key, progress=progress)
    task = job.task
    found = Comparison(Cell("dense"), (), STEPS, MODELS)
    if task is not None:
        counting, metrics = task.metrics[0], measure_metrics(task, job.model)
        found = replace(
            found,
            dense=replace(found.dense, metric=metrics[counting.name]),
            metric=counting.name,
            higher_is_better=counting.higher_is_better,
        )
    for done, factor in enumerate(factors):
        progress("compare", done, len(factors), f"factor {factor:g}")
        models, why = _models(job, factor)
        dense, cells = _measured(job.checkpoint, models, task)
        cells |= {method: Cell(method, why=reason) for method, reason in why.items()}
        row = Row(factor, tuple(cells[method] for method in METHODS))
        dense = replace(dense, metric=found.dense.metric)
        found = replace(found, dense=dense, rows=(*found.rows, row))
        on_row(found)
    progress("compare", len(factors), len(factors))
    return found


def _models(job: Job, factor: float) -> tuple[dict[str, CompressedModel], dict[str, str]]:
    """Compress by every method: the models, and the reasons of methods that cannot.

    Raises:
        PlanError: no method can, for example because the recipe does not fit the model.
    """
    models, why = {}, {}
    for method in METHODS:
        try:
            models[method] = _build(method, replace(job, progress=silent), factor)
        except PlanError as error:
            why[method] = str(error).split(". ")[0]
            refused = error
    if not models:
        raise refused.at(f"factor {factor:g}")
    return models, why


def _build(method: str, job: Job, factor: float) -> CompressedModel:
    if method == CODEC:
        return code(job, factor)
    recipe = method_recipe(method, job.recipe, factor, lambda: job.checkpoint.weights)
    shown = None if recipe.calibration is None else job.calibration
    return build(replace(job, recipe=recipe, calibration=shown))


def _measured(
    checkpoint: Checkpoint, models: Mapping[str, CompressedModel], task: Task | None
) -> tuple[Cell, dict[str, Cell]]:
    """The dense model's cell without its metric, and the cell of each compressed model."""
    contents: dict[str, Content] = {name: model.content() for name, model in models.items()}
    contents["dense"] = checkpoint.state_dict()
    times = _milliseconds(checkpoint.stacks, contents)
    cells = {
        method: replace(
            _sizes(method, model, checkpoint),
            milliseconds=times.get(method),
            metric=None if task is None else measure_metrics(task, model)[task.metrics[0].name],
        )
        for method, model in models.items()
    }
    totals = next(iter(models.values())).report.totals["weights"]
    dense = Cell(
        "dense",
        factor=1.0,
        params=totals.params_before,
        bytes=totals.bytes_before,
        relative_error=0.0,
        multiply_adds=totals.multiply_adds_before,
        milliseconds=times.get("dense"),
    )
    return dense, cells


def _milliseconds(
    stacks: Sequence[RecurrentStack], contents: Mapping[str, Content]
) -> dict[str, float]:
    """The median time of `STEPS` steps at batch 1 through all recurrent layers of each model.

    Empty if none of its layers can be run.
    """
    if not stacks:
        return {}
    inputs = [torch.randn(1, STEPS, stack.input_size) for stack in stacks]

    def caller(content: Content) -> Callable[[], object]:
        layers = [recurrent_layer(stack, content) for stack in stacks]
        return lambda: [layer(x) for layer, x in zip(layers, inputs, strict=True)]

    with torch_threads(1), torch.no_grad():
        calls = {name: caller(content) for name, content in contents.items()}
        return {name: t.median for name, t in timings(calls, SECONDS, clock_for(1)).items()}


def _sizes(method: str, model: CompressedModel, checkpoint: Checkpoint) -> Cell:
    totals = model.report.totals["weights"]
    return Cell(
        method,
        factor=totals.compression_factor,
        params=totals.params_after,
        bytes=totals.bytes_after,
        relative_error=_error(model, checkpoint),
        multiply_adds=totals.multiply_adds_after,
    )


def _error(model: CompressedModel, checkpoint: Checkpoint) -> float:
    """Relative Frobenius error over all weights whose numbers changed."""
    lost = norm = 0.0
    for entry in model.report.weights:
        square = float(checkpoint.tensor(entry.name).double().square().sum())
        lost += entry.relative_error**2 * square
        norm += square
    return sqrt(lost / norm) if norm else 0.0
