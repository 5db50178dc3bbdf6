"""Limits judge a finished report; the verdicts stand in the file whose size they judge."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import ttcompress
from ttcompress.artifact import CompressedModel
from ttcompress.errors import RecipeError
from ttcompress.recipe import Drop, Limits
from ttcompress.workflows.limits import broken_limits, judge_report, judged


@pytest.fixture(scope="module")
def model(tiny_artifact: Path) -> CompressedModel:
    return ttcompress.load(tiny_artifact)


def test_without_limits_nothing_changes(model: CompressedModel) -> None:
    assert judged(model, None) is model
    assert judged(model, Limits()).report == model.report


@pytest.mark.parametrize(
    ("limits", "ok"),
    [
        (Limits(min_factor=1.5), True),
        (Limits(min_factor=50), False),
        (Limits(max_size=10_000), True),
        (Limits(max_size=9_999), False),
        (Limits(min_multiply_adds=1), True),
        (Limits(min_multiply_adds=1.01), False),
    ],
)
def test_each_limit_holds_or_breaks(limits: Limits, ok: bool, model: CompressedModel) -> None:
    report = judge_report(model.report, limits, file_bytes=10_000)
    [entry] = report.limits
    assert set(entry) == {"name", "limit", "value", "ok"}
    assert entry["ok"] is ok
    assert broken_limits(report) == (() if ok else (entry,))


METRICS = {
    "perplexity": {"before": 4.0, "after": 4.1, "drop": 0.1, "higher_is_better": False},
    "accuracy": {"before": 0.9, "after": 0.1, "drop": 0.8, "higher_is_better": True},
}


@pytest.mark.parametrize(
    ("drop", "ok"),
    [
        (Drop(0.03, relative=True), True),
        (Drop(0.02, relative=True), False),
        (Drop(0.11, relative=False), True),
        (Drop(0.09, relative=False), False),
    ],
)
def test_a_drop_is_judged_by_the_counting_metric_alone(drop: Drop, ok: bool, model) -> None:
    measured = replace(model.report, metrics=METRICS)
    [entry] = judge_report(measured, Limits(max_drop=drop.written), 1).limits
    assert entry["ok"] is ok


def test_a_drop_that_nobody_measured_is_refused(model: CompressedModel) -> None:
    with pytest.raises(RecipeError, match="a drop of 1% can only be judged with a task"):
        judge_report(model.report, Limits(max_drop="1%"), 1)


@pytest.mark.parametrize(("drop", "ok"), [(0.0, True), (0.1, False)])
def test_a_relative_limit_on_a_metric_that_was_zero_allows_no_drop_at_all(drop, ok, model) -> None:
    metrics = {"loss": {"before": 0.0, "after": drop, "drop": drop, "higher_is_better": False}}
    [entry] = judge_report(replace(model.report, metrics=metrics), Limits(max_drop="50%"), 1).limits
    assert entry["ok"] is ok
    json.dumps(entry, allow_nan=False)


def test_a_value_equal_to_its_limit_keeps_it(model: CompressedModel) -> None:
    factor = model.report.totals["weights"].compression_factor
    assert not broken_limits(judge_report(model.report, Limits(min_factor=factor), 1))
    assert not broken_limits(judge_report(model.report, Limits(max_size=77), 77))
    assert broken_limits(judge_report(model.report, Limits(max_size=77), 78))


def test_all_limits_are_judged_in_one_report(model: CompressedModel) -> None:
    limits = Limits(min_factor=50, max_size=1, min_multiply_adds=1)
    report = judged(model, limits).report
    assert [entry["name"] for entry in broken_limits(report)] == ["min_factor", "max_size"]
    assert len(report.limits) == 3


def test_the_size_that_is_judged_is_that_of_the_file(model: CompressedModel, tmp_path) -> None:
    """At every limit around the real size: the verdict's own bytes count too."""
    size = judged(model, Limits(max_size=10**6)).file_bytes
    for limit in range(size - 40, size + 40):
        found = judged(model, Limits(max_size=limit))
        found.save(tmp_path / "out", overwrite=True)
        [entry] = ttcompress.load(tmp_path / "out").report.limits
        assert entry["value"] == (tmp_path / "out").stat().st_size
        assert entry["ok"] is (entry["value"] <= limit)


@pytest.mark.parametrize(("drop", "ok"), [(0.0, True), (-0.5, True), (0.004, False)])
def test_a_percentage_of_zero_allows_nothing_and_is_shown_in_the_unit_of_the_drop(
    drop, ok, model: CompressedModel
) -> None:
    metrics = {"errors": {"before": 0.0, "after": drop, "drop": drop, "higher_is_better": False}}
    report = replace(model.report, metrics=metrics)
    (entry,) = judge_report(report, Limits(max_drop=Drop(0.01, relative=True)), 0).limits
    assert entry == {"name": "max_drop", "limit": 0.0, "value": drop, "ok": ok}


def test_a_percentage_of_a_negative_metric_is_of_its_size(model: CompressedModel) -> None:
    metrics = {"snr": {"before": -4.0, "after": -4.1, "drop": 0.1, "higher_is_better": True}}
    report = replace(model.report, metrics=metrics)
    (entry,) = judge_report(report, Limits(max_drop=Drop(0.02, relative=True)), 0).limits
    assert entry["value"] == pytest.approx(0.025) and not entry["ok"]
