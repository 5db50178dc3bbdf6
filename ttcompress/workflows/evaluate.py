"""Measures a dense or a compressed model on a task."""

from __future__ import annotations

from pathlib import Path

from ttcompress.artifact import CompressedModel, is_artifact, load
from ttcompress.checkpoint import Checkpoint, ModelSource, open_checkpoint
from ttcompress.errors import RecipeError
from ttcompress.hub import local_file
from ttcompress.layers.recurrent_model import Chain
from ttcompress.model.protocol import Model
from ttcompress.system.progress import Progress, silent
from ttcompress.targets.c.native import NativeModel, load_native
from ttcompress.targets.parts import task_part
from ttcompress.targets.registry import find_target
from ttcompress.tasks.evaluation import (
    Comparison,
    Metrics,
    Options,
    compare_metrics,
    measure_metrics,
    measure_module,
)
from ttcompress.tasks.protocol import Task
from ttcompress.tasks.registry import task_for
from ttcompress.workflows.export import check_quantize


def evaluate(
    model: ModelSource | Checkpoint | CompressedModel,
    task: str | Task,
    options: Options = None,
    *,
    key: str | None = None,
    native: str | None = None,
    progress: Progress = silent,
) -> Metrics:
    """Measure a dense or compressed model on a task.

    Args:
        model: a checkpoint or an artifact, or the file of either; a module or a state dict.
        task: a task, or its name (see `find_task`).
        options: for the task, if it is given by name.
        key: which state dict to use if a checkpoint's file holds several.
        native: "none", "int8" or "int4" runs a compressed model as the C code that `export` with
            this `quantize` writes, and a built-in task.
        progress: receives what is being done.

    Returns:
        The task's metrics by name, the counting one first.

    Raises:
        InputError: a file is missing.
        RecipeError: the task is unknown, or the model does not fit it.
        TTCompressError: see `ttcompress.errors`.
    """
    opened = open_model(model, key)
    chosen = task_for(opened, task, options)
    progress("evaluate", 0, 1, chosen.name)
    if native is None:
        metrics = measure_metrics(chosen, opened)
    else:
        metrics = measure_module(chosen, _as_c(opened, chosen, native))
    progress("evaluate", 1, 1)
    return metrics


def _as_c(model: Checkpoint | CompressedModel, task: Task, quantize: str) -> NativeModel:
    """The model compiled as C, for a task to call.

    Raises:
        RecipeError: it is not compressed, or the task has code of its own.
        MissingExtraError: there is no C compiler.
    """
    if not isinstance(model, CompressedModel):
        raise RecipeError("native: only a compressed model runs as C. Compress it first.")
    if not isinstance(getattr(task, "chain", None), Chain):
        raise RecipeError(
            f"native: the task {task.name} runs the model in code of its own. Use a built-in task."
        )
    return NativeModel(
        load_native(task_part(model, task), check_quantize(find_target("c"), quantize))
    )


def metrics_before_after(
    original: Model,
    compressed: Model,
    task: str | Task,
    options: Options = None,
    *,
    progress: Progress = silent,
) -> Comparison:
    """Measure a model before and after its compression.

    Returns:
        For each metric, the counting one first, `before`, `after`, `drop` and `higher_is_better`.
        `drop` is how much the metric worsened, in its unit; a negative one is an improvement.

    Raises:
        TTCompressError: as for `evaluate`.
    """
    chosen = task_for(original, task, options)
    progress("evaluate", 0, 2, f"{chosen.name}, before")
    before = measure_metrics(chosen, original)
    progress("evaluate", 1, 2, f"{chosen.name}, after")
    after = measure_metrics(chosen, compressed)
    progress("evaluate", 2, 2)
    return compare_metrics(chosen, before, after)


def open_model(
    model: ModelSource | Checkpoint | CompressedModel, key: str | None = None
) -> Checkpoint | CompressedModel:
    """Open an artifact of ttcompress or a checkpoint, if it is not open already.

    Raises:
        InputError: no such file.
        CheckpointError, ArtifactError: the file is not understood.
    """
    if isinstance(model, Checkpoint | CompressedModel):
        return model
    if isinstance(model, str | Path):
        model = local_file(model)
        if is_artifact(model):
            return load(model)
    return open_checkpoint(model, key)
