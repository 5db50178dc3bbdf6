"""The whole way from a checkpoint and a recipe to a compressed model.

    checkpoint --+
                 +-> prepare: Job -> decompose -> [refit] -> [tune] -> measure -> judge -> finish
    recipe ------+

Read this file first; every arrow is one call.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from torch import nn

from ttcompress.artifact import CompressedModel
from ttcompress.calibration.refit import refit
from ttcompress.checkpoint import Checkpoint, ModelSource
from ttcompress.layers.swap import compressed_copy
from ttcompress.recipe import AnyRecipe, Finetune, as_recipe, with_options
from ttcompress.system.launch import is_first
from ttcompress.system.progress import Progress, silent
from ttcompress.tasks.protocol import Task
from ttcompress.training.finetune import CONDITIONS, Conditions, add_control, finetune
from ttcompress.workflows.budget import fit_budget, meet_size, meet_tolerance, settle_flash
from ttcompress.workflows.drift import drift_over_time
from ttcompress.workflows.drop_search import find_within_drop
from ttcompress.workflows.evaluate import metrics_before_after
from ttcompress.workflows.job import Data, Job, prepare
from ttcompress.workflows.limits import check_limits, judged


def compress(
    source: ModelSource | Checkpoint,
    recipe: AnyRecipe = None,
    *,
    task: Task | None = None,
    data: Data | None = None,
    key: str | None = None,
    conditions: Conditions = CONDITIONS,
    trials: Path | None = None,
    progress: Progress = silent,
) -> CompressedModel:
    """Compress a trained model, fine-tune it where the recipe says so, measure and judge it.

    A broken limit is not an error: see `report.limits`. Nothing is written.

    Args:
        source: a checkpoint's file; or a trained module, on any device, or its state dict. They
            are not changed: `.module()` of the result is a compressed copy of the module.
        recipe: a `Recipe`, a file, the name of a shipped recipe, or a mapping with a recipe's keys;
            the default is `balanced`.
        task: measures the model, and trains it if the recipe fine-tunes; by default the one that
            the recipe names.
        data: inputs to calibrate on: a file of recorded ones, or, for a module, its batches (such
            as a DataLoader) of which the first are used. A file is also what a recipe fine-tunes
            on if there is no task.
        key: which state dict to use if the file holds several; see `open_checkpoint`.
        conditions: how fine-tuning runs: device, resuming, control; and who receives the model as
            soon as it is finished.
        trials: with a `drop` budget, the file that keeps the trials; removed at the end.
        progress: receives what is being done.

    Raises:
        TTCompressError: see `ttcompress.errors`.
    """
    chosen = with_options(as_recipe(recipe), key=key)
    check_limits(chosen, task)
    job = prepare(source, chosen, task=task, data=data, conditions=conditions, progress=progress)
    model = build(job) if chosen.budget.drop is None else find_within_drop(job, build, trials)
    if isinstance(source, nn.Module):
        model = replace(model, make_module=partial(compressed_copy, source))
    return finish(job, judged(measure(job, model), chosen.limits), job.checkpoint, trials)


def build(job: Job) -> CompressedModel:
    """Plan, decompose, refit and fine-tune as the recipe says; nothing is measured on the task."""
    model = fit_budget(job, partial(_decompose, job))
    return model if job.recipe.finetune is None else tune(job, model, job.checkpoint)


def _decompose(job: Job, aim: float) -> CompressedModel:
    """Plan, decompose and refit, aiming at a fraction of the bytes that are allowed."""
    job = settle_flash(job)
    size = job.largest_file
    meet = partial(meet_tolerance, aim=aim)
    model = meet(job) if size is None else meet_size(job, size, meet)
    if job.calibration is not None:
        model = refit(job.checkpoint, model, job.calibration, job.progress)
    return model


def tune(job: Job, model: CompressedModel, original: Checkpoint | None) -> CompressedModel:
    """Fine-tune as the recipe says; `original` teaches, and errors are measured against it.

    Without labels everything is learned from the original, by the divergence that is measured: at
    temperature 1.
    """
    assert job.trainer is not None  # `prepare` chose it
    settings = job.recipe.finetune or Finetune()
    if not getattr(job.trainer, "labelled", True):
        settings = replace(settings, distill=1.0, temperature=1.0)
    conditions = replace(job.conditions, seed=job.recipe.seed)
    return finetune(model, job.trainer, settings, conditions, original)


def finish(
    job: Job, model: CompressedModel, original: Checkpoint | None, trials: Path | None = None
) -> CompressedModel:
    """Hand over a measured model, train the control if there is one, and remove what was saved.

    The order is what keeps hours of work: nothing that could continue the run is removed before the
    model has been handed over, and the control, which takes as long as the training, comes last.
    """
    conditions, settings = job.conditions, job.recipe.finetune
    conditions.keep(model)
    if conditions.control and settings is not None and original is not None:
        assert job.task is not None  # `tune` asked for one
        seeded = replace(conditions, seed=job.recipe.seed)
        limits = job.recipe.limits
        model = judged(add_control(model, job.task, settings, seeded, original), limits)
        conditions.keep(model)
    conditions.forget()
    if trials is not None and is_first():
        trials.unlink(missing_ok=True)
    return model


def measure(job: Job, model: CompressedModel) -> CompressedModel:
    """Add to the report what was lost: drift always, the task's metrics where there is a task."""
    task = job.task
    # Whether a plain RNN uses tanh or relu is known to the task's model, not to the file.
    unclear = task is not None and any(stack.kind == "rnn" for stack in model.stacks)
    like = task.build() if task is not None and unclear else None
    drift = drift_over_time(job.model, model, seed=job.recipe.seed, like=like)
    metrics = None
    if task is not None:
        metrics = metrics_before_after(job.model, model, task, progress=job.progress)
    return replace(model, report=replace(model.report, drift=drift, metrics=metrics))
