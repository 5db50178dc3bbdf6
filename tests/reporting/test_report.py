"""Tables, remarks and Markdown of one report whose every figure is set by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ttcompress.model.report import (
    KeptReport,
    PlanReport,
    Report,
    Totals,
    WeightReport,
    times_fewer,
)
from ttcompress.reporting.budget import answers
from ttcompress.reporting.markdown import report_markdown, table_markdown
from ttcompress.reporting.report import (
    ESTIMATED_BYTES,
    EXPECTED_SIZES,
    files_table,
    limit_text,
    plan_remarks,
    report_remarks,
    report_summary,
    totals_table,
    weights_table,
)
from ttcompress.reporting.summary import summary_text
from ttcompress.reporting.table import Column, Table

WEIGHT = WeightReport(
    name="lstm.weight_hh_l0",
    names=("lstm.weight_hh_l0",),
    role="recurrent",
    format="mpo",
    row_modes=(4, 8),
    column_modes=(2, 4),
    ranks=(5,),
    store="int4",
    params_before=256,
    params_after=200,
    bytes_before=1024,
    bytes_after=128,
    multiply_adds_before=256,
    multiply_adds_after=64,
    relative_error=0.123456,
    worst_row_error=0.45678,
    gate_errors=(0.1, 0.1, 0.1, 0.2),
    spectrum=(),
    notes=("ranks [9] lowered to the attainable [5]",),
)
WEIGHTS = Totals(256, 200, 1024, 128, 256, 64)
MODEL = Totals(1256, 1200, 5024, 4128, 1256, 1064)
REPORT = Report(
    ttcompress="0.1.0",
    source={"sha256": "0" * 64, "bytes": 6000},
    recipe={"text": "", "effective": {"budget": {"factor": 7.5}}},
    totals={"weights": WEIGHTS, "model": MODEL},
    weights=(WEIGHT,),
    kept=(
        KeptReport("head.weight", 900, 3600, "no rule matches it"),
        KeptReport("head.bias", 60, 240, "not a weight"),
        KeptReport("lstm.bias_ih_l0", 40, 160, "not a weight"),
    ),
    notes=("a note",),
)


def with_budget(**budget: float) -> Report:
    return replace(REPORT, recipe={"text": "", "effective": {"budget": budget}})


def test_a_weight_is_one_row() -> None:
    [row] = weights_table(REPORT).rows
    assert row == (
        "lstm.weight_hh_l0",
        "mpo",
        "4.8 x 2.4",
        "5",
        "int4",
        "256",
        "200",
        "128",
        "0.1235",
        "0.4568",
    )


def test_both_scopes_are_told_in_three_quantities() -> None:
    rows = totals_table(REPORT.totals).rows
    assert rows[:3] == (
        ("weights", "params", "256", "200", "78.1% kept"),
        ("weights", "bytes", "1,024", "128", "factor 8.00"),
        ("weights", "multiply-adds", "256", "64", "factor 4.00"),
    )
    assert [row[0] for row in rows[3:]] == ["model"] * 3


@pytest.mark.parametrize(
    ("budget", "asked", "achieved"),
    [
        ({"factor": 7.5}, "7.5", "8.00"),
        ({"size": 5000}, "5,000 bytes", "4,800 bytes"),
        ({"model_factor": 1.01}, "1.01", "1.05"),
        ({"params": 2000}, "2,000", "200"),
        ({"multiply_adds": 3.5}, "3.5", "4.00"),
        ({"tolerance": 0.2}, "0.2", "0.1235"),
        ({"rank": 6}, "6", "5"),
    ],
)
def test_every_budget_is_answered(budget, asked, achieved) -> None:
    [answer] = answers(with_budget(**budget), file_bytes=4800)
    assert (answer.name, answer.asked, answer.achieved) == (*budget, asked, achieved)


def test_a_tolerance_is_answered_by_the_worst_weight_and_a_rank_by_the_largest() -> None:
    other = replace(WEIGHT, name="other", relative_error=0.01, ranks=(2, 3))
    dense = replace(WEIGHT, name="dense", relative_error=0.15, ranks=(), format="dense")
    report = replace(with_budget(tolerance=0.2, rank=6), weights=(other, WEIGHT, dense))
    assert [answer.achieved for answer in answers(report)] == ["0.15", "5"]
    [answer] = answers(replace(with_budget(tolerance=0.2), weights=(dense,)))
    assert answer.achieved == "0.15"


@pytest.mark.parametrize(
    ("rule", "achieved"),
    [
        ({"format": "dense", "store": "int4"}, "0.1235"),
        ({"format": "dense"}, "0.5"),
        ({"store": "int4"}, "0.5"),
        ({"row_modes": [4], "column_modes": [8], "ranks": [2]}, "0.1235"),
        ({"ranks": 2}, "0.5"),
    ],
)
def test_a_tolerance_is_not_answered_by_what_a_rule_fixes(rule, achieved) -> None:
    ruled = replace(WEIGHT, name="ruled", names=("a", "ruled"), relative_error=0.5)
    effective = {"budget": {"tolerance": 0.2}, "store": "auto", "rules": [{"weights": "a"} | rule]}
    report = replace(REPORT, recipe={"text": "", "effective": effective}, weights=(WEIGHT, ruled))
    assert [answer.achieved for answer in answers(report)] == [achieved]


def test_budgets_that_stand_together_are_answered_one_by_one() -> None:
    found = answers(with_budget(rank=6, factor=7.5, size=5000))  # no file yet: no size
    assert [answer.name for answer in found] == ["rank", "factor"]


def test_remarks_leave_nothing_out() -> None:
    limits = (
        {"name": "min_factor", "limit": 6.0, "value": 8.0, "ok": True},
        {"name": "max_size", "limit": 4000, "value": 4800, "ok": False},
    )
    assert report_remarks(replace(REPORT, limits=limits), 4800) == (
        "factor: 8.00 (budget: 7.5)",
        "file: 6,000 -> 4,800 bytes, 1.25x",
        "head.weight is kept (3,600 bytes): no rule matches it",
        "not compressed: 2 other tensors, 400 bytes",
        "lstm.weight_hh_l0: ranks [9] lowered to the attainable [5]",
        "a note",
        "limit min_factor 6: 8, kept",
        "limit max_size 4,000: 4,800, BROKEN",
    )


@pytest.mark.parametrize(
    ("limit", "value", "line"),
    [
        (278_812.0, 300_000, "limit baseline_size 278,812: 300,000, BROKEN"),
        (1_500.5, 1_600, "limit baseline_size 1,500: 1,600, BROKEN"),
        (0.01, 0.0123456, "limit baseline_size 0.01: 0.01235, BROKEN"),
    ],
)
def test_a_limit_is_written_in_one_notation(limit: float, value: float, line: str) -> None:
    verdict = {"name": "baseline_size", "limit": limit, "value": value, "ok": False}
    assert limit_text(verdict) == line


@pytest.mark.parametrize(
    ("budget", "said"),
    [({"tolerance": 0.1}, True), ({"tolerance": 0}, False), ({"rank": 2}, False)],
)
def test_a_plan_under_a_tolerance_says_that_its_sizes_are_expected(budget, said: bool) -> None:
    asked = {"text": "", "effective": {"budget": budget}}
    plan = PlanReport("0.1.0", REPORT.source, asked, REPORT.totals, (), ())
    assert (EXPECTED_SIZES in plan_remarks(plan)) is said


def test_what_coded_weights_take_in_memory_is_said() -> None:
    weights = tuple(replace(weight, store="coded") for weight in REPORT.weights)
    values = sum(weight.params_after for weight in weights)
    others = REPORT.totals["model"].bytes_after - sum(weight.bytes_after for weight in weights)
    line = f"in memory: {4 * values + others:,} bytes of tensors once loaded, with cores in float32"
    assert line in report_remarks(replace(REPORT, weights=weights), 4800)
    assert not any(said.startswith("in memory") for said in report_remarks(REPORT, 4800))


@pytest.mark.parametrize("store", ["coded", "int4"])
def test_a_plan_says_that_bytes_of_coded_weights_are_estimates(store: str) -> None:
    asked = {"text": "", "effective": {"budget": {"factor": 8}}}
    weights = tuple(replace(weight, store=store) for weight in REPORT.weights)
    plan = PlanReport("0.1.0", REPORT.source, asked, REPORT.totals, weights, ())
    assert weights and (ESTIMATED_BYTES in plan_remarks(plan)) is (store == "coded")


def test_what_is_kept_is_told_in_time_that_grows_with_it_and_not_with_its_square() -> None:
    """Counted, not timed: no two entries are compared."""
    compared = 0

    class Watched(KeptReport):
        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return super().__eq__(other)

        __hash__ = None

    kept = tuple(Watched(f"bias_{k}", 1, 4, "not a weight") for k in range(50))
    remarks = report_remarks(replace(REPORT, kept=kept), 4800)
    assert "not compressed: 50 other tensors, 200 bytes" in remarks
    assert compared == 0


def test_metrics_are_remarked_on() -> None:
    metrics = {"perplexity": {"before": 4.5, "after": 5.0, "drop": 0.5, "higher_is_better": False}}
    remarks = report_remarks(replace(REPORT, metrics=metrics), 4800)
    assert remarks[-1].startswith("perplexity: 4.5 -> 5")


def test_files_side_by_side() -> None:
    failed = replace(REPORT, limits=({"name": "max_size", "limit": 1, "value": 2, "ok": False},))
    rows = files_table([("a", REPORT, 3000), ("b", failed, 6000)]).rows
    assert rows == (
        ("a", "mpo", "3,000", "2.00x", "8.00x", "4.00x", "0.1235", "-"),
        ("b", "mpo", "6,000", "1.00x", "8.00x", "4.00x", "0.1235", "BROKEN"),
    )


def test_markdown_holds_the_same_cells() -> None:
    page = report_markdown("model_a", REPORT, 4800)
    conclusion, _, remarks = report_summary(REPORT, 4800, file="model_a")
    assert page.startswith(f"# model\\_a\n\n{conclusion}\n\n| weight | format |")
    assert page.replace("\\", "").endswith(f"\n- {remarks[-1]}\n")
    assert (
        "| lstm.weight\\_hh\\_l0 | mpo | 4.8 x 2.4 | 5 | int4 | 256 | 200 | 128 | 0.1235 |" in page
    )
    assert "- file: 6,000 -> 4,800 bytes, 1.25x\n" in page


def test_markdown_escapes_what_would_break_a_table() -> None:
    table = Table((Column("a|b"), Column("n", right=True)), (("x|y<z\nw", "1"),))
    assert table_markdown(table).splitlines() == [
        "| a\\|b | n |",
        "| --- | --: |",
        "| x\\|y&lt;z w | 1 |",
    ]


def test_nothing_left_is_a_factor_of_one() -> None:
    assert (times_fewer(8, 2), times_fewer(0, 0)) == (4, 1)


def test_a_result_in_python_says_its_metric_or_that_there_is_none() -> None:
    assert "accuracy not measured: give a task" in summary_text(REPORT, 4800)
    change = {"before": 2.0, "after": 2.125, "drop": 0.125, "higher_is_better": False}
    text = summary_text(replace(REPORT, metrics={"loss": change}), 4800)
    assert "\n  loss: 2 -> 2.125" in text and "not measured" not in text
    nothing = summary_text(replace(REPORT, weights=()), 4800)
    assert "no weights changed (nothing), largest error 0.0" in nothing
