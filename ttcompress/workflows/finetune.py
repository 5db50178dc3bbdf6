"""Fine-tunes a model that is already compressed, and judges it again."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from torch import nn

from ttcompress.artifact import CompressedModel, load
from ttcompress.checkpoint import ModelSource
from ttcompress.layers.swap import compressed_copy
from ttcompress.model.report import BLIND
from ttcompress.recipe import AnyRecipe, Finetune, recipe_from, task_recipe
from ttcompress.system.progress import Progress, silent
from ttcompress.tasks.evaluation import compare_metrics, measure_metrics
from ttcompress.tasks.protocol import Task
from ttcompress.training.finetune import CONDITIONS, Conditions
from ttcompress.workflows.compress import finish, measure, tune
from ttcompress.workflows.job import Job, prepare
from ttcompress.workflows.limits import check_limits, judged
from ttcompress.workflows.original import open_original


def finetune(
    artifact: str | Path | CompressedModel,
    recipe: AnyRecipe = None,
    *,
    original: ModelSource | None = None,
    task: Task | None = None,
    conditions: Conditions = CONDITIONS,
    progress: Progress = silent,
) -> CompressedModel:
    """Fine-tune a model that is already compressed, and judge it again.

    Args:
        artifact: the compressed model or its file.
        recipe: only its `task:`, `finetune:` and `limits:` blocks are used; it needs no budget.
            Without limits, those of the recipe that made the artifact apply.
        original: what it was made from, as the teacher and for the errors: a checkpoint's file, a
            module or its state dict.
        task: in place of the one that the recipe names.
        conditions: device, resuming, control.
        progress: receives what is being done.

    Raises:
        CheckpointError: `original` is another file than the one that was compressed.
        TTCompressError: see `ttcompress.errors`.
    """
    # The decomposition is not redone, whatever the recipe says about calibration.
    chosen = replace(task_recipe(recipe), calibration=None)
    compressed = artifact if isinstance(artifact, CompressedModel) else load(artifact)
    under = recipe_from(compressed.report.recipe["effective"])
    dense = None
    if original is not None:
        place = "the artifact" if isinstance(artifact, CompressedModel) else str(artifact)
        dense = open_original(original, compressed, place, chosen.key)
    if isinstance(original, nn.Module):
        compressed = replace(compressed, make_module=partial(compressed_copy, original))
    settings = chosen.finetune or Finetune()
    chosen = replace(chosen, finetune=settings, limits=chosen.limits or under.limits)
    check_limits(chosen, task)
    job = prepare(dense or compressed, chosen, task=task, conditions=conditions, progress=progress)
    tuned = tune(job, compressed, dense)
    if dense is None:
        made = _measure_alone(job, compressed, tuned)
    else:
        made = measure(job, tuned)
        # Everything was measured: the note of an earlier training without the original is wrong.
        notes = tuple(note for note in made.report.notes if note != BLIND)
        made = replace(made, report=replace(made.report, notes=notes))
    return finish(job, judged(made, chosen.limits), dense)


def _measure_alone(job: Job, before: CompressedModel, after: CompressedModel) -> CompressedModel:
    """Measure without the original: against its metrics in the report, or those before training."""
    task = job.task
    assert task is not None  # `tune` asked for one
    known = {name: found["before"] for name, found in (before.report.metrics or {}).items()}
    first = measure_metrics(task, before) | known
    metrics = compare_metrics(task, first, measure_metrics(task, after))
    notes = (*after.report.notes, BLIND)
    return replace(after, report=replace(after.report, metrics=metrics, notes=notes))
