"""Fine-tunes a compressed model on a task, and updates its report."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from ttcompress.artifact import CompressedModel
from ttcompress.checkpoint import Checkpoint
from ttcompress.errors import RecipeError
from ttcompress.recipe import Finetune
from ttcompress.tasks.evaluation import compare_metrics, load_model
from ttcompress.tasks.protocol import Task
from ttcompress.training.loop import StepReport, Training, TrainingResult
from ttcompress.training.machine import make_machine
from ttcompress.training.resume import resume_progress, save_progress
from ttcompress.trains.stored import measure_errors

SAVE_EVERY = 60.0
"""Seconds between two saves of a run that can be resumed."""


@dataclass(frozen=True)
class Conditions:
    """How to run a fine-tuning: the settings that do not belong in a recipe.

    `device` and `precision` are those of `make_machine`. `resume` is the file that a run saves to
    and continues from; `control` also trains the dense original for as long; `watch` is called
    after every step.
    """

    seed: int = 0
    device: str | None = None
    precision: str = "no"
    resume: Path | None = None
    control: bool = False
    watch: Callable[[StepReport], None] = lambda report: None


CONDITIONS = Conditions()
"""The defaults."""


def finetune(
    compressed: CompressedModel,
    task: Task,
    settings: Finetune,
    conditions: Conditions,
    original: Checkpoint | None = None,
) -> CompressedModel:
    """Train a compressed model on a task; its counting metric never becomes worse.

    Args:
        compressed: the model to start from.
        task: gives batches, losses and metrics.
        settings: the recipe's `finetune:` block.
        conditions: seed, device, precision, resuming, control.
        original: the model before compression: the teacher, and the reference for errors. Without
            it nothing is distilled, and the report keeps the errors it had.

    Raises:
        RecipeError: there is no training data, `control` lacks the original, or the file belongs
            to another run.
        TrainingError: the loss is not finite; `conditions.resume` holds the last good state.
    """
    if conditions.control and original is None:
        raise RecipeError("--control also trains the original; give it with --original MODEL.")
    teacher = load_model(task, original) if original and settings.distill else None
    tuned = _train(compressed, task, settings, conditions, teacher)
    control, entries = None, tuned.model.report.weights
    if conditions.control and original is not None:
        path = conditions.resume
        beside = None if path is None else path.with_name(f"{path.name}.control")
        alone = replace(conditions, resume=beside)
        dense = _train(keep_everything(compressed, original), task, settings, alone, None)
        control = {
            name: {"control": found["before"], "after": found["after"], "drop": found["drop"]}
            for name, found in compare_metrics(task, dense.after, tuned.after).items()
        }
    if original is not None:
        errors = {
            one.weight.name: measure_errors(
                original.tensor(one.weight.name), one.blocks(), one.weight
            )
            for one in tuned.model.weights
        }
        entries = tuple(
            replace(entry, **vars(errors[entry.name])) if entry.name in errors else entry
            for entry in entries
        )
    done = {"task": task.name, "steps": tuned.steps, "settings": asdict(settings)}
    report = replace(tuned.model.report, weights=entries, control=control, finetune=done)
    return replace(tuned.model, report=report)


def keep_everything(compressed: CompressedModel, original: Checkpoint) -> CompressedModel:
    """Turn the original into a model that can be trained: every tensor is kept as it is."""
    names = [weight.name for weight in original.weights] + [t.name for t in original.others]
    report = replace(compressed.report, weights=())
    kept = {name: original.tensor(name) for name in names}
    return replace(compressed, weights=(), kept=kept, report=report)


def _train(
    start: CompressedModel,
    task: Task,
    settings: Finetune,
    conditions: Conditions,
    teacher: torch.nn.Module | None,
) -> TrainingResult:
    """Run one training, saved about once a minute, at the end of epochs and when interrupted.

    With several processes, all are in the same place only between epochs: it is saved only there.
    """
    machine = make_machine(conditions.device, conditions.precision)
    training = Training(
        start, task, settings, seed=conditions.seed, teacher=teacher, machine=machine
    )
    path, last = conditions.resume, time.monotonic()
    if path is None:
        return training.run(conditions.watch)
    if path.exists():
        resume_progress(training, path)
    alone, saves = machine.processes == 1, machine.rank == 0

    def watch(report: StepReport) -> None:
        nonlocal last
        is_late = alone and time.monotonic() - last > SAVE_EVERY
        if saves and (report.metrics is not None or is_late):
            save_progress(training, path)
            last = time.monotonic()
        conditions.watch(report)

    try:
        tuned = training.run(watch)
    except KeyboardInterrupt:
        if alone:
            save_progress(training, path)
        raise
    if saves:
        path.unlink(missing_ok=True)
    return tuned
