"""What is said about drift and the worst element, of reports whose figures are set by hand."""

from __future__ import annotations

from dataclasses import replace
from math import inf, nan
from typing import Any

import pytest

from tests.reporting.test_report import REPORT, WEIGHT
from ttcompress.model.report import Change, Report
from ttcompress.reporting.html import report_page
from ttcompress.reporting.losses import LARGE, LOST, loss_remarks, lost_remarks
from ttcompress.reporting.markdown import report_markdown
from ttcompress.reporting.report import files_table, report_remarks

DRIFT = {"encoder.": {"1": 0.01, "10": 0.2, "100": 0.3}, "decoder.": {"1": 0.1}}


def lossy(drift: float, element: float | None, **changes: Any) -> Report:
    """A report with one layer, one weight with an element error, and one without an error."""
    weights = (replace(WEIGHT, worst_element_error=element), replace(WEIGHT, name="older"))
    return replace(REPORT, drift={"lstm.": {"1": drift}}, weights=weights, **changes)


def test_the_layer_that_drifts_most_is_named() -> None:
    [line] = loss_remarks(replace(REPORT, drift=DRIFT))
    assert line == (
        "drift: outputs of encoder differ by 0.0100 at step 1, 0.2000 at step 10 and 0.3000 at "
        "step 100, relative to their norm; no other layer drifts more"
    )


def test_the_worst_element_is_named_with_its_weight() -> None:
    second = replace(WEIGHT, name="lstm.weight_ih_l0", worst_element_error=0.25)
    weights = (replace(WEIGHT, worst_element_error=0.125), second)
    [line] = loss_remarks(replace(REPORT, weights=weights))
    assert line == "worst element: off by 0.2500 of the largest value in lstm.weight_ih_l0"


@pytest.mark.parametrize(
    ("drift", "element", "what"),
    [
        (LARGE, LARGE, None),
        (0.51, 0.1, "The drift is"),
        (0.1, 0.51, "The worst element is"),
        (inf, 2.0, "The drift and worst element are"),
        (0.1, inf, "The worst element is"),
        (nan, 0.1, "The drift is"),
        (0.9, None, "The drift is"),
        (0.1, None, None),
    ],
)
def test_what_is_large_is_called_so(drift: float, element: float | None, what: str | None) -> None:
    sentences = [line for line in loss_remarks(lossy(drift, element)) if "above" in line]
    wanted = f"{what} above 0.5, which usually costs accuracy."
    assert sentences == ([wanted] if what else [])


def test_where_accuracy_was_measured_nothing_is_said_to_cost_it_usually() -> None:
    change: Change = {"before": 1.6, "after": 1.7, "drop": 0.1, "higher_is_better": False}
    metrics = {"bits_per_character": change}
    assert len(list(loss_remarks(lossy(0.9, 0.9, metrics=metrics)))) == 2


def test_nothing_is_said_of_what_was_not_measured() -> None:
    assert list(loss_remarks(REPORT)) == []
    assert list(loss_remarks(replace(REPORT, drift={"lstm.": {}}))) == []


def test_every_notation_has_the_lines() -> None:
    report = lossy(0.7, 0.6)
    lines = list(loss_remarks(report))
    assert len(lines) == 3
    assert set(lines) <= set(report_remarks(report, 4800))
    assert all(f"- {line}" in report_markdown("x", report, 1).replace("\\", "") for line in lines)
    page = report_page([("small", report, 4800)])
    assert f"<li>{lines[-1]}</li>" in page  # the others are in its tables


def test_files_side_by_side_show_the_largest_drift() -> None:
    table = files_table([("a", replace(REPORT, drift=DRIFT), 10), ("b", REPORT, 10)])
    place = [column.heading for column in table.columns].index("drift")
    assert [row[place] for row in table.rows] == ["0.3000", "-"]
    assert "drift" not in [c.heading for c in files_table([("b", REPORT, 10)]).columns]


def test_an_error_survives_the_artifact() -> None:
    report = lossy(0.1, 0.25)
    assert Report.from_json(report.as_json()) == report
    older = report.as_json()
    for weight in older["weights"]:
        del weight["worst_element_error"]
    assert {w.worst_element_error for w in Report.from_json(older).weights} == {None}


def test_a_recurrent_weight_that_lost_half_is_remarked_on() -> None:
    second = replace(WEIGHT, name="lstm.weight_ih_l0", relative_error=0.8)
    table = replace(WEIGHT, name="e.weight", role="embedding", relative_error=0.9)
    assert WEIGHT.role == "recurrent"
    kept = (replace(WEIGHT, relative_error=LOST), replace(WEIGHT, relative_error=nan), table)
    assert not list(lost_remarks(replace(REPORT, weights=kept)))
    [line] = lost_remarks(replace(REPORT, weights=(*kept, second)))
    assert line.startswith("lstm.weight_ih_l0 has an error of 0.8000, above 0.7: half of")
    first = replace(WEIGHT, relative_error=0.75)
    report = replace(REPORT, weights=(first, second))
    [line] = lost_remarks(report)
    assert "above 0.7, and 1 other recurrent weight too: " in line
    assert line in report_remarks(report, 4800)
    assert not list(lost_remarks(replace(report, finetune={"task": "charlm", "steps": 9})))
