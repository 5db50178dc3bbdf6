"""Saves a `Training` to a file, and resumes it from there after an interruption.

The file holds only tensors and plain values, and is read as such (`weights_only`).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ttcompress.errors import RecipeError
from ttcompress.system.files import written_whole
from ttcompress.training.loop import Training
from ttcompress.training.student import apply_rounding


def fingerprint(training: Training) -> str:
    """Identify a run: another source, plan, recipe, task, seed or length gives another text."""
    report = training.start.report
    facts = {
        "source": report.source["sha256"],
        "plan": [(w.name, w.format, w.ranks, w.store) for w in report.weights],
        "settings": {k: v for k, v in asdict(training.settings).items() if k != "log"},
        "task": training.task.name,
        "seed": training.seed,
        "steps": training.steps,
        "processes": training.machine.processes,
        "teacher": training.distillation is not None,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def save_progress(training: Training, path: Path) -> None:
    """Save the state of a run, completely or not at all.

    Raises:
        OutputError: the disk is full or not writable.
    """
    content = {
        "fingerprint": fingerprint(training),
        "step": training.step,
        "stale": training.stale,
        "judged": training.judged,
        "best_step": training.best_step,
        "sees_store": training.sees_store,
        "state": training.state,
        "price": (training.rate.price, training.rate.push) if training.rate else None,
        "student": training.student.state_dict(),
        "optimizer": training.optimizer.state_dict(),
        "best": training.best.stored_tensors(),
        "metrics": training.metrics,
        "random": torch.get_rng_state(),
    }
    with written_whole(path, overwrite=True) as file:
        torch.save(content, file)


def resume_progress(training: Training, path: Path) -> None:
    """Restore a run to the state in its file.

    Raises:
        RecipeError: the file belongs to another run, or is damaged.
    """
    try:
        content = torch.load(path, weights_only=True)
    except Exception as error:  # torch raises all kinds of errors on a damaged file
        raise _damaged(path, error) from error
    if not isinstance(content, dict) or content.get("fingerprint") != fingerprint(training):
        raise RecipeError(
            f"{path}: belongs to another run: the model, recipe, task, seed or number of steps "
            "differs. Resume with the same ones, or delete the file to start over."
        )
    try:
        _restore(training, content)
    except (LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise _damaged(path, error) from error


def _restore(training: Training, content: dict[str, Any]) -> None:
    if content["sees_store"]:
        apply_rounding(training.student, training.start)
    training.student.load_state_dict(content["student"])
    training.optimizer.load_state_dict(content["optimizer"])
    for name in ("step", "judged", "stale", "best_step"):
        value = content[name]
        if type(value) is not int or not 0 <= value <= training.steps:
            raise ValueError(f"{value!r} is not a number of steps up to {training.steps}")
        setattr(training, name, value)
    training.sees_store, training.state = content["sees_store"], content["state"]
    if training.rate is not None:
        training.rate.price, training.rate.push = map(float, content["price"])
    training.best = training.start.with_tensors(content["best"])
    names = [metric.name for metric in training.task.metrics]
    training.metrics = {name: float(content["metrics"][name]) for name in names}
    if training.machine.processes == 1:
        torch.set_rng_state(content["random"])
    else:  # the file is the first process's: the others need different random numbers
        torch.manual_seed(hash((training.seed, training.machine.rank, training.step)))


def _damaged(path: Path, error: Exception) -> RecipeError:
    reason = f"{type(error).__name__}: {str(error)[:120]}"
    return RecipeError(f"{path}: cannot be resumed from ({reason}). Delete it to start over.")
