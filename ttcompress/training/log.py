"""Writes the course of a training for other programs to draw: `start_log`.

`csv` needs nothing. The others are accelerate's trackers, each with a package of its own. The
control's course stands beside the training's, under names that begin with "control/".
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

from ttcompress.errors import MissingExtraError, OutputError
from ttcompress.recipe import Tracker
from ttcompress.system.extras import require_extra
from ttcompress.system.launch import is_first
from ttcompress.tasks.protocol import Task
from ttcompress.training.loop import StepReport

EVERY = 10
"""Steps from one line to the next; the end of an epoch always has one."""

CSV_NAME = "training.csv"

Values = Mapping[str, float]
Write = Callable[[int, Values], None]


def start_log(
    kind: Tracker | None, folder: Path, task: Task, settings: Mapping[str, Any], run: str
) -> Callable[[StepReport], None]:
    """Begin a log, and return what is to be called after every step.

    Args:
        kind: which program's; None for no log.
        folder: for what the program writes; it is made if it is missing.
        task: names the metrics.
        settings: of the training, for programs that show them.
        run: "training" or "control".

    Raises:
        MissingExtraError: the program's package is not installed.
        OutputError: the folder is not writable.
    """
    if kind is None or not is_first():
        return lambda report: None
    metrics = [metric.name for metric in task.metrics]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        make = _csv if kind == "csv" else _tracker
        write = make(kind, folder, metrics, settings, run)
    except OSError as error:
        raise OutputError(
            f"{folder}: the log cannot be written: {error.strerror or error}. "
            "Remove `finetune.log`, or choose another output."
        ) from error

    def note(report: StepReport) -> None:
        if report.metrics is None and report.step % EVERY:
            return
        speed = report.steps_per_second
        values = {"epoch": report.epoch, "loss": report.loss, "steps_per_second": speed}
        write(report.step, values | (report.metrics or {}))

    return note


def _csv(
    kind: Tracker, folder: Path, metrics: list[str], settings: Mapping[str, Any], run: str
) -> Write:
    path = folder / CSV_NAME
    columns = ["run", "step", "epoch", "loss", "steps_per_second", *metrics]
    fresh = run == "training" and settings.get("step", 0) == 0
    if fresh or not path.exists():
        with path.open("w", newline="", encoding="utf-8") as file:
            _rows(file, columns).writeheader()

    def write(step: int, values: Values) -> None:
        with path.open("a", newline="", encoding="utf-8") as file:
            _rows(file, columns).writerow({"run": run, "step": step, **values})

    return write


def _rows(file: TextIO, columns: list[str]) -> csv.DictWriter[str]:
    return csv.DictWriter(file, columns, lineterminator="\n")


def _tracker(
    kind: Tracker, folder: Path, metrics: list[str], settings: Mapping[str, Any], run: str
) -> Write:
    require_extra("train", ("accelerate",), f"finetune.log: {kind}", "`log: csv` needs nothing.")
    from accelerate import PartialState, tracking  # an extra

    PartialState()  # trackers ask it which process is the first
    name = "ttcompress"
    try:
        match kind:
            case "tensorboard":
                tracker: Any = tracking.TensorBoardTracker(name, folder)
            case "wandb":
                tracker = tracking.WandBTracker(name, dir=str(folder))
            case _:
                tracker = tracking.MLflowTracker(name, folder)
        tracker.start()
    except ImportError as error:
        raise MissingExtraError(
            f"finetune.log: {kind} needs a package that is not installed ({error.name}). "
            f"Install it with `pip install {kind}`, or write `log: csv`, which needs nothing."
        ) from error
    tracker.store_init_configuration({k: v for k, v in settings.items() if v is not None})
    prefix = "" if run == "training" else f"{run}/"

    def write(step: int, values: Values) -> None:
        tracker.log({prefix + key: value for key, value in values.items()}, step=step)

    return write
