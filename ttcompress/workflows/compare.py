"""A model and factors enter; mps, mpo, svd, few bits and their mixture side by side leave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import sqrt
from pathlib import Path

from ttcompress.artifact import CompressedModel
from ttcompress.calibration.moments import Calibration
from ttcompress.checkpoint import Checkpoint, open_checkpoint
from ttcompress.errors import PlanError
from ttcompress.layers.timing import STEPS, layers_with, milliseconds
from ttcompress.recipe import AnyRecipe, Recipe, as_recipe
from ttcompress.results.comparison import Cell, Comparison, Row
from ttcompress.system.progress import Progress, silent
from ttcompress.tasks.evaluation import measure_metrics, state_dict_of
from ttcompress.tasks.protocol import Task
from ttcompress.workflows.compress import calibration_of, carry_out, task_of
from ttcompress.workflows.methods import METHODS, method_recipe

MODELS = {
    "mps": "params = sum of r[k-1] n[k] r[k]; multiply-adds = r (rows + columns), middle rank r",
    "mpo": "params = sum of r[k-1] m[k] n[k] r[k]; multiply-adds = sum of r[k-1] m[1] .. m[k] "
    "n[k] .. n[d] r[k], or rows x columns where rebuilding W is cheaper",
}
"""The cost models: Murua et al. (2020), section 3, for one matrix and one time step."""


def compare(
    source: str | Path,
    factors: Sequence[float],
    recipe: AnyRecipe = None,
    *,
    key: str | None = None,
    progress: Progress = silent,
) -> Comparison:
    """Compress a model by every method at every factor, and measure all of them alike.

    Args:
        source: the checkpoint's file.
        factors: compression factors of the decomposed weights.
        recipe: which weights, calibration, fine-tuning and task; its format and budget do not
            count. Calibration is for mps, mpo and auto; svd and quantised are done by hand.
        key: which state dict to take where the file holds several.
        progress: told what is being done.

    Raises:
        TTCompressError: see `ttcompress.errors`.
    """
    chosen = as_recipe(recipe)
    checkpoint = open_checkpoint(source, key or chosen.key)
    task = task_of(chosen, checkpoint)
    calibration = calibration_of(chosen, checkpoint, task, progress)
    dense, rows = Cell("dense"), []
    for done, factor in enumerate(factors):
        progress("compare", done, len(factors), f"factor {factor:g}")
        models, why = _models(checkpoint, chosen, task, calibration, factor)
        dense, cells = _measured(checkpoint, models, task)
        found = cells | {method: Cell(method, why=reason) for method, reason in why.items()}
        rows.append(Row(factor, tuple(found[method] for method in METHODS)))
    progress("compare", len(factors), len(factors))
    if task is None:
        return Comparison(dense, tuple(rows), STEPS, MODELS)
    counting = task.metrics[0]
    dense = replace(dense, metric=measure_metrics(task, checkpoint)[counting.name])
    named = (counting.name, counting.higher_is_better)
    return Comparison(dense, tuple(rows), STEPS, MODELS, *named)


def _models(
    checkpoint: Checkpoint,
    recipe: Recipe,
    task: Task | None,
    calibration: Calibration | None,
    factor: float,
) -> tuple[dict[str, CompressedModel], dict[str, str]]:
    """The models by method, and why some methods have none.

    Raises:
        PlanError: no method has one, as where the recipe does not fit the model.
    """
    models, why = {}, {}
    for method in METHODS:
        try:
            asked = method_recipe(method, recipe, factor, lambda: checkpoint.weights)
            shown = None if asked.calibration is None else calibration
            models[method] = carry_out(checkpoint, asked, task, shown)
        except PlanError as error:
            why[method] = str(error).split(". ")[0]
            refused = error
    if not models:
        raise refused.at(f"factor {factor:g}")
    return models, why


def _measured(
    checkpoint: Checkpoint, models: Mapping[str, CompressedModel], task: Task | None
) -> tuple[Cell, dict[str, Cell]]:
    """The dense model's cell but for its metric, and those of the models that could be made."""
    stacks = checkpoint.stacks
    layers = {name: layers_with(stacks, model.content()) for name, model in models.items()}
    layers["dense"] = layers_with(stacks, state_dict_of(checkpoint))
    times = milliseconds(stacks, layers)
    cells = {
        method: replace(
            _sizes(method, model, checkpoint),
            milliseconds=times[method],
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
        milliseconds=times["dense"],
    )
    return dense, cells


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
