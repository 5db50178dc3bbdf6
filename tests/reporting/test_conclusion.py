"""The sentence on top of a report and the next step, of reports whose figures are set by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.reporting.test_report import REPORT, WEIGHT
from ttcompress.model.report import Change, Report
from ttcompress.recipe import load_recipe, shipped
from ttcompress.reporting.conclusion import conclude, next_step

KEPT = {"name": "max_drop", "limit": 0.1, "value": 0.05, "ok": True}
BROKEN = {"name": "min_factor", "limit": 9.0, "value": 8.0, "ok": False}
CALIBRATED = {"positions": 8}
TUNED = {"task": "charlm", "steps": 3}


def change(before: float, after: float, higher: bool = False) -> Change:
    drop = before - after if higher else after - before
    return {"before": before, "after": after, "drop": drop, "higher_is_better": higher}


def measured(lost: float, **changes: Any) -> Report:
    """A report whose counting metric is worse by a share, made under a factor of 8."""
    effective = {"budget": {"factor": 8.0}, "task": {"name": "charlm"}, "format": "auto"}
    recipe = {"text": "", "effective": effective | changes.pop("effective", {})}
    metrics = {"loss": change(2.0, 2.0 * (1 + lost)), "accuracy": change(0.9, 0.1, higher=True)}
    return replace(REPORT, recipe=recipe, metrics=metrics, **changes)


def timed(*speed_ups: float) -> dict[str, Any]:
    rows = [
        {"part": "lstm", "batch": batch, "run": run, "speed_up": speed_up}
        for batch, fastest in enumerate(speed_ups)
        for run, speed_up in (("torch dense", 9.0), ("c", fastest), ("c int8", fastest / 2))
    ]
    return {"rows": rows}


@pytest.mark.parametrize(
    ("changes", "file_bytes", "sentence"),
    [
        ({}, 4800, "1.2x smaller; accuracy not measured: add --task"),
        ({}, 12000, "2.0x larger; accuracy not measured: add --task"),
        ({"metrics": {"a_b": change(0.5, 0.49, True)}}, 750, "8.0x smaller, a b down 2.00%"),
        ({"metrics": {"loss": change(2.0, 2.5)}}, 750, "8.0x smaller, loss up 25.00%"),
        ({"metrics": {"loss": change(2.0, 1.9)}}, 750, "8.0x smaller, loss down 5.00%"),
        ({"metrics": {"loss": change(2.0, 2.00001)}}, 750, "8.0x smaller, loss unchanged"),
        ({"metrics": {"loss": change(0.0, 0.5)}}, 750, "8.0x smaller, loss 0 -> 0.5"),
        ({"metrics": {"loss": change(0.0, 0.0)}}, 750, "8.0x smaller, loss unchanged"),
        (
            {"metrics": {"loss": change(2.0, 2.5)}, "limits": (KEPT,)},
            750,
            "8.0x smaller, loss up 25.00%; limits kept",
        ),
        (
            {"limits": (KEPT, BROKEN)},
            750,
            "8.0x smaller; accuracy not measured: add --task; min_factor BROKEN",
        ),
        (
            {"metrics": {"loss": change(2.0, 2.5)}, "bench": timed(0.5, 3.0)},
            750,
            "8.0x smaller, 2.0x slower to 3.0x faster here, loss up 25.00%",
        ),
        *(
            (
                {"metrics": {"loss": change(2.0, 2.5)}, "bench": timed(*speed_ups)},
                750,
                f"8.0x smaller, {said} here, loss up 25.00%",
            )
            for speed_ups, said in (
                ((3.0,), "3.0x faster"),
                ((2.0, 1.5, 1.8), "1.5x to 2.0x faster"),
                ((0.5, 0.8), "2.0x to 1.2x slower"),
            )
        ),
    ],
)
def test_one_sentence_says_it_all(changes, file_bytes: int, sentence: str) -> None:
    assert conclude(replace(REPORT, **changes), file_bytes) == sentence


AGAIN = "ttcompress decompose m.pt --task charlm"


@pytest.mark.parametrize(
    ("report", "command"),
    [
        (measured(0.05), f"{AGAIN} --factor 8 --calibrate 24"),
        (measured(0.05, calibration=CALIBRATED), "finetune"),
        (measured(0.05, effective={"calibration": {"batches": 24}}), "finetune"),
        (
            measured(0.05, effective={"calibration": {"batches": 24, "synthetic": 64}}),
            f"{AGAIN} --factor 8 --calibrate 24",
        ),
        (measured(0.05, calibration=CALIBRATED, finetune=TUNED), f"{AGAIN} --factor 4"),
        (
            measured(
                0.05, calibration=CALIBRATED, finetune=TUNED, effective={"budget": {"factor": 3}}
            ),
            f"{AGAIN} -r near-lossless",
        ),
        (measured(0.005), "ttcompress export a.st -o model.onnx"),
        (measured(0.001), f"{AGAIN} --factor 16"),
        (measured(-0.5), f"{AGAIN} --factor 16"),
        (measured(0.001, limits=(BROKEN,)), f"{AGAIN} --factor 9"),
        (
            measured(0.001, limits=({**BROKEN, "name": "max_size", "limit": 4000},)),
            f"{AGAIN} --size 4000",
        ),
        (
            measured(0.001, limits=({**KEPT, "ok": False},), calibration=CALIBRATED),
            "finetune",
        ),
    ],
)
def test_the_next_step_follows_from_the_figures(report: Report, command: str) -> None:
    if command == "finetune":
        command = "ttcompress finetune a.st --task charlm -o tuned.safetensors"
    assert next_step(report, "a.st", "m.pt").command == command


def test_without_a_metric_drift_and_lost_weights_stand_in() -> None:
    assert next_step(REPORT).command == "ttcompress evaluate FILE --task TASK"
    lost = replace(REPORT, weights=(replace(WEIGHT, relative_error=0.75),))
    for report in (replace(REPORT, drift={"lstm.": {"1": 0.6}}), lost):
        command = "ttcompress decompose MODEL --task TASK --factor 7.5 --calibrate 24"
        assert next_step(report).command == command


def test_a_command_names_the_recipe_and_the_format() -> None:
    texts = {one.name: load_recipe(one.path).text for one in shipped()}
    for text, options in (
        (texts["balanced"], ""),
        (texts["small"], " -r small"),
        ("version: 1\n", " -r RECIPE"),
    ):
        recipe = {"text": text, "effective": {"format": "mps", "task": {"name": "my task.py:T"}}}
        report = replace(measured(0.05), recipe=recipe)
        wanted = f"ttcompress decompose 'a b.pt'{options} --format mps --task 'my task.py:T'"
        assert next_step(report, "f", "a b.pt").command.startswith(wanted)
