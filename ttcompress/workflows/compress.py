"""The whole way: checkpoint and recipe -> plan -> compress -> [fine-tune] -> measure -> artifact.

    checkpoint --+
                 +-> [calibrate] -> plan -> execute -> [refit] -> [tune] -> measure
    recipe ------+                                   -> judged -> CompressedModel (.save: artifact)

Read this file first; every arrow is one call.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import nn

from ttcompress.artifact import CompressedModel
from ttcompress.calibration.moments import Calibration, calibrate
from ttcompress.calibration.refit import refit
from ttcompress.calibration.sources import DataSource, FileSource, TaskSource
from ttcompress.checkpoint import Checkpoint, open_checkpoint
from ttcompress.errors import RecipeError
from ttcompress.layers.structure import structure_of
from ttcompress.recipe import AnyRecipe, Finetune, Recipe, as_recipe, with_options
from ttcompress.system.progress import Progress, silent
from ttcompress.tasks.protocol import Task
from ttcompress.tasks.registry import make_task
from ttcompress.training.finetune import CONDITIONS, Conditions, finetune
from ttcompress.trains.stored import NO_WEIGHTINGS, Weightings
from ttcompress.workflows.build import decompose
from ttcompress.workflows.drift import drift_over_time
from ttcompress.workflows.drop_search import within_drop
from ttcompress.workflows.evaluate import metrics_before_after
from ttcompress.workflows.limits import check_limits, judged


def compress(
    source: str | Path,
    recipe: AnyRecipe = None,
    *,
    key: str | None = None,
    conditions: Conditions = CONDITIONS,
    trials: Path | None = None,
    progress: Progress = silent,
) -> CompressedModel:
    """Compress a trained checkpoint, fine-tune it where the recipe says so, measure and judge it.

    A broken limit is no error: see `report.limits`.

    Args:
        source: the checkpoint's file.
        recipe: a `Recipe`, a file, the name of a shipped recipe, or a mapping with a recipe's keys;
            the default is `balanced`.
        key: which state dict to take where the file holds several.
        conditions: of a fine-tuning: device, resuming, control.
        trials: under a budget of drop, the file that keeps what was tried; removed at the end.
        progress: told what is being done.

    Raises:
        TTCompressError: see `ttcompress.errors`; nothing else is written here.
    """
    chosen = with_options(as_recipe(recipe), key=key)
    check_limits(chosen)
    checkpoint = open_checkpoint(source, chosen.key)
    task = task_of(chosen, checkpoint)
    calibration = calibration_of(chosen, checkpoint, task, progress)

    def carried(one: Recipe) -> CompressedModel:
        return carry_out(checkpoint, one, task, calibration, conditions, progress)

    if chosen.budget.drop is None:
        compressed = carried(chosen)
    else:
        compressed = within_drop(carried, checkpoint, chosen, task, trials, progress)
    made = measure(checkpoint, compressed, task, seed=chosen.seed, progress=progress)
    return judged(made, chosen.limits)


def carry_out(
    checkpoint: Checkpoint,
    recipe: Recipe,
    task: Task | None,
    calibration: Calibration | None = None,
    conditions: Conditions = CONDITIONS,
    progress: Progress = silent,
) -> CompressedModel:
    """Plan, execute, refit and fine-tune as a recipe says; nothing is measured on the task."""
    compressed = decompose(checkpoint, recipe, progress, weightings_of(calibration))
    if calibration is not None:
        compressed = refit(checkpoint, compressed, calibration, progress)
    if recipe.finetune is not None:
        compressed = tune(compressed, recipe, task, checkpoint, conditions)
    return compressed


def calibration_of(
    recipe: Recipe, checkpoint: Checkpoint, task: Task | None, progress: Progress = silent
) -> Calibration | None:
    """What the data of a recipe's `calibration:` block show; None where it has no such block.

    Raises:
        RecipeError: there is neither a task nor a file.
    """
    if recipe.calibration is None:
        return None
    source: DataSource
    if recipe.calibration.data is not None:
        source = FileSource(recipe.calibration.data, checkpoint.stacks)
    elif task is not None:
        source = TaskSource(task, checkpoint.stacks, recipe.calibration.batches, recipe.seed)
    else:
        raise RecipeError(
            "calibration: needs data. Add --task, whose batches show the weights their inputs, "
            "or --calibration-data with a file of them."
        )
    return calibrate(checkpoint, source, progress)


def weightings_of(calibration: Calibration | None) -> Weightings:
    """What errors cost, by weight; nothing without a calibration."""
    return NO_WEIGHTINGS if calibration is None else calibration.weightings


def tune(
    compressed: CompressedModel,
    recipe: Recipe,
    task: Task | None,
    original: Checkpoint | None,
    conditions: Conditions = CONDITIONS,
) -> CompressedModel:
    """Fine-tune as the recipe says.

    Raises:
        RecipeError: there is no task.
    """
    if task is None:
        raise RecipeError(
            "finetune: needs a task, which says what is trained and what counts. "
            "Add --task, or a task block to the recipe."
        )
    settings = recipe.finetune or Finetune()
    return finetune(compressed, task, settings, replace(conditions, seed=recipe.seed), original)


def measure(
    checkpoint: Checkpoint,
    compressed: CompressedModel,
    task: Task | None = None,
    *,
    seed: int = 0,
    progress: Progress = silent,
) -> CompressedModel:
    """Add to the report what was lost: drift always, the task's metrics where there is a task."""
    drift = drift_over_time(checkpoint, compressed, seed=seed, like=_like(compressed, task))
    metrics = None
    if task is not None:
        metrics = metrics_before_after(checkpoint, compressed, task, progress=progress)
    return replace(compressed, report=replace(compressed.report, drift=drift, metrics=metrics))


def _like(compressed: CompressedModel, task: Task | None) -> nn.Module | None:
    """The model as a module, where that tells more than the file: of what kind an RNN is."""
    unclear = any(stack.kind == "rnn" for stack in compressed.stacks)
    return task.build() if task is not None and unclear else None


def task_of(recipe: Recipe, model: Checkpoint | CompressedModel) -> Task | None:
    """The task that a recipe names, built for a model; None where it names none."""
    if recipe.task is None:
        return None
    return make_task(recipe.task.name, structure_of(model), dict(recipe.task.options))
