"""The log of a training: its lines, the control beside it, and what is missing."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import pytest

import ttcompress
from ttcompress.errors import MissingExtraError
from ttcompress.training.finetune import Conditions

RECIPE: dict[str, Any] = {
    "version": 1,
    "format": "mps",
    "budget": {"factor": 16},
    "store": "int4",
    "finetune": {"epochs": 2, "max_steps": 24, "log": "csv"},
}


def read(folder: Path) -> list[dict[str, str]]:
    with (folder / "training.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_log_has_the_loss_and_the_metrics_of_every_epoch(case, tmp_path: Path) -> None:
    folder, seen = tmp_path / "log", []
    conditions = Conditions(folder=folder, watch=seen.append)
    made = ttcompress.compress(case.path, RECIPE, task=case.task, conditions=conditions)
    rows = read(folder)
    assert [int(row["step"]) for row in rows if row["bits_per_character"]] == [
        report.step for report in seen if report.metrics
    ]
    noted = {int(row["step"]): float(row["loss"]) for row in rows}
    assert noted == {r.step: r.loss for r in seen if r.step in noted} and 10 in noted
    assert made.report.finetune is not None
    best = made.report.finetune["best_step"]
    metrics = {int(r["step"]): r["bits_per_character"] for r in rows if r["bits_per_character"]}
    assert best in metrics and float(metrics[best]) == min(map(float, metrics.values()))
    assert "log" not in made.report.finetune["settings"]  # the same model, logged or not


def test_the_control_stands_beside_it(case, tmp_path: Path) -> None:
    conditions = Conditions(folder=tmp_path / "log", control=True)
    ttcompress.compress(case.path, RECIPE, task=case.task, conditions=conditions)
    runs = [row["run"] for row in read(tmp_path / "log")]
    assert set(runs) == {"training", "control"} and runs == sorted(runs, reverse=True)


def test_tensorboard_shows_the_loss_and_the_metrics(case, tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    recipe = {**RECIPE, "finetune": {**RECIPE["finetune"], "log": "tensorboard"}}
    conditions = Conditions(folder=tmp_path / "log", control=True)
    made = ttcompress.compress(case.path, recipe, task=case.task, conditions=conditions)
    assert made.report.finetune is not None and made.report.metrics is not None
    shown: dict[str, list[float]] = {}
    for folder in tmp_path.glob("log/ttcompress"):
        for file in folder.glob("events*"):
            found = events.EventAccumulator(str(file)).Reload()
            for tag in found.Tags()["scalars"]:
                shown[tag] = [scalar.value for scalar in found.Scalars(tag)]
    assert min(shown["bits_per_character"]) == pytest.approx(
        made.report.metrics["bits_per_character"]["after"]
    )
    assert {"loss", "control/loss", "control/bits_per_character"} <= shown.keys()


@pytest.mark.parametrize("kind", ["mlflow", "wandb", "tensorboard"])
def test_a_program_that_is_not_installed_is_named(
    case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    for module in (kind, "tensorboardX", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, module, None)
    recipe = {**RECIPE, "finetune": {"max_steps": 1, "log": kind}}
    conditions = Conditions(folder=tmp_path / "log")
    with pytest.raises(MissingExtraError, match=f"{kind} needs a package .*`log: csv`"):
        ttcompress.compress(case.path, recipe, task=case.task, conditions=conditions)
