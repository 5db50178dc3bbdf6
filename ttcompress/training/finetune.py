"""Fine-tunes a compressed model on a task, and updates its report."""

from __future__ import annotations

import glob
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from ttcompress.artifact import CompressedModel
from ttcompress.checkpoint import Checkpoint
from ttcompress.errors import RecipeError
from ttcompress.recipe import Finetune
from ttcompress.system.launch import is_first
from ttcompress.tasks.evaluation import compare_metrics, load_model
from ttcompress.tasks.protocol import Task
from ttcompress.training.log import start_log
from ttcompress.training.loop import StepReport, Training, TrainingResult
from ttcompress.training.machine import make_machine
from ttcompress.training.resume import resume_progress, save_progress
from ttcompress.trains.stored import measure_errors

SAVE_EVERY = 60.0
"""Seconds between two saves of a run that can be resumed."""


@dataclass(frozen=True)
class Conditions:
    """How to run a fine-tuning: the settings that do not belong in a recipe.

    Attributes:
        seed: of the batches.
        device, precision: see `make_machine`.
        resume: the file that a run saves to and continues from.
        control: also train the dense original for as long.
        folder: for the log, if the recipe asks for one.
        watch: called after every step.
        keep: receives the finished model, to write it, before the control is trained, and again
            with the control's figures.
    """

    seed: int = 0
    device: str | None = None
    precision: str = "no"
    resume: Path | None = None
    control: bool = False
    folder: Path = Path("training")
    watch: Callable[[StepReport], None] = lambda report: None
    keep: Callable[[CompressedModel], None] = lambda model: None

    def named(self, name: str) -> Conditions:
        """The same for another training of this run, with a file of its own."""
        path = self.resume
        return replace(self, resume=None if path is None else path.with_name(f"{path.name}.{name}"))

    def forget(self, *but: Path | None) -> None:
        """Remove the saved states of this run, except some; only when its result is safe."""
        if self.resume is not None and is_first():
            for path in saved_states(self.resume):
                if path not in but:
                    path.unlink(missing_ok=True)


CONDITIONS = Conditions()
"""The defaults."""

CONTROL, TRIAL = "control", "trial-"
"""In the names of the files of the control, and of the trials of a search."""


def saved_states(resume: Path) -> list[Path]:
    """The files that a run with this file for its state has left."""
    trials = resume.parent.glob(f"{glob.escape(resume.name)}.{TRIAL}*")
    found = (resume, resume.with_name(f"{resume.name}.{CONTROL}"), *sorted(trials))
    return [path for path in found if path.is_file()]


def finetune(
    compressed: CompressedModel,
    task: Task,
    settings: Finetune,
    conditions: Conditions,
    original: Checkpoint | None = None,
) -> CompressedModel:
    """Train a compressed model on a task; its counting metric never becomes worse.

    The state at the end stays in `conditions.resume`, until the result is safe: see
    `Conditions.forget`.

    Args:
        compressed: the model to start from.
        task: gives batches, losses and metrics.
        settings: the recipe's `finetune:` block.
        conditions: seed, device, precision, resuming, control.
        original: the model before compression: the teacher, and the reference for errors. Without
            it nothing is distilled, and the report keeps the errors it had.

    Raises:
        RecipeError: there is no training data, the original is missing where it is needed, or the
            file belongs to another run.
        TrainingError: the loss is not finite; `conditions.resume` holds the last good state.
    """
    if conditions.control and original is None:
        raise RecipeError("--control also trains the original; give it with --original MODEL.")
    if settings.distill == 1 and original is None:
        raise RecipeError(
            "finetune.distill: with 1 everything is learned from the original, but there is none. "
            "Give it with --original MODEL, or set distill below 1."
        )
    if settings.distill == 1 and conditions.control:
        raise RecipeError(
            "--control trains the original on the task's loss, but with `distill: 1` nothing is "
            "trained on it. Omit --control, or set distill below 1."
        )
    teacher = load_model(task, original) if original and settings.distill else None
    covers = getattr(task, "covers", None)
    start = compressed if covers is None else compressed.part(covers)
    tuned = _train(start, task, settings, conditions, teacher)
    model = tuned.model if covers is None else compressed.with_part(tuned.model)
    entries = model.report.weights
    if original is not None:
        errors = {
            one.weight.name: measure_errors(
                original.tensor(one.weight.name), one.blocks(), one.weight
            )
            for one in model.weights
        }
        entries = tuple(
            replace(entry, **vars(errors[entry.name])) if entry.name in errors else entry
            for entry in entries
        )
    kept = {key: value for key, value in asdict(settings).items() if key != "log"}
    done = {"task": task.name, "steps": tuned.steps, "best_step": tuned.best_step, "settings": kept}
    return replace(model, report=replace(model.report, weights=entries, finetune=done))


def add_control(
    tuned: CompressedModel,
    task: Task,
    settings: Finetune,
    conditions: Conditions,
    original: Checkpoint,
) -> CompressedModel:
    """Train the dense original for as long as a model was, and add its metrics to the report.

    Args:
        tuned: the trained model, with its metrics.
        task, settings, conditions: those of its training.
        original: the model before compression.

    Raises:
        TTCompressError: as for `finetune`.
    """
    start = keep_everything(tuned, original)
    dense = _train(start, task, settings, conditions.named(CONTROL), None, CONTROL)
    after = {name: float(found["after"]) for name, found in (tuned.report.metrics or {}).items()}
    control = {
        name: {"control": found["before"], "after": found["after"], "drop": found["drop"]}
        for name, found in compare_metrics(task, dense.after, after).items()
    }
    return replace(tuned, report=replace(tuned.report, control=control))


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
    run: str = "training",
) -> TrainingResult:
    """Run one training, saved about once a minute, at the end of epochs and when interrupted.

    The last save holds the finished training: resumed from there, it ends at once.

    With several processes, all are in the same place only between epochs: it is saved only there.
    """
    machine = make_machine(conditions.device, conditions.precision)
    training = Training(
        start, task, settings, seed=conditions.seed, teacher=teacher, machine=machine
    )
    path, last = conditions.resume, time.monotonic()
    if path is not None and path.exists():
        resume_progress(training, path)
    facts = asdict(settings) | {"step": training.step}
    log = start_log(settings.log, conditions.folder, task, facts, run)
    alone, saves = machine.processes == 1, machine.rank == 0

    def watch(report: StepReport) -> None:
        nonlocal last
        is_late = alone and time.monotonic() - last > SAVE_EVERY
        if path is not None and saves and (report.metrics is not None or is_late):
            save_progress(training, path)
            last = time.monotonic()
        log(report)
        conditions.watch(report)

    try:
        return training.run(watch)
    except KeyboardInterrupt:
        if path is not None and alone:
            save_progress(training, path)
        raise
