"""What is said about the parts of a source's file that are not in the result."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.reporting.test_report import REPORT
from ttcompress.model.report import LeftOut, Report
from ttcompress.reporting.html import report_page
from ttcompress.reporting.report import files_table, report_remarks

AVERAGE = LeftOut("ema", 3, 400, "another state dict")
ADAM = LeftOut("optimizer", 9, 350, "optimizer state")
LEFT_OUT = replace(REPORT, left_out=(AVERAGE, ADAM))  # of 6,000 bytes; the tensors have 5,024


def test_each_part_is_a_line() -> None:
    lines = [line for line in report_remarks(LEFT_OUT, 4800) if line.startswith("left out")]
    assert lines == [
        "left out: `ema`, another state dict (3 tensors, 400 bytes); "
        "compress it with --key ema, or every one with --key all",
        "left out: `optimizer`, optimizer state (9 tensors, 350 bytes)",
    ]


def test_parts_without_tensors_or_place() -> None:
    content = LeftOut("words", 0, 0, "not carried over: a value in it is no plain data")
    unused = LeftOut(".", 0, 4096, "stored values that no tensor of the model uses")
    lines = report_remarks(replace(REPORT, left_out=(content, unused)), 4800)
    assert "left out: `words`, not carried over: a value in it is no plain data" in lines
    assert "left out: 4,096 bytes of stored values that no tensor of the model uses" in lines


@pytest.mark.parametrize(
    ("lost", "before"),
    [
        (0, 6000),
        (750, 5250),
        (976, 5024),
        (3000, 5024),  # what was left out lay compressed in the file: the tensors count
    ],
)
def test_no_factor_of_files_counts_what_was_left_out(lost: int, before: int) -> None:
    report = replace(REPORT, left_out=(replace(ADAM, bytes=lost),))
    assert report.comparable_bytes == before
    without = f" without the {6000 - before:,} bytes that were left out" if lost else ""
    line = f"file: 6,000 -> 2,000 bytes, {before / 2000:.2f}x{without}"
    assert line in report_remarks(report, 2000)
    table = files_table([("small", report, 2000)])
    assert table.rows[0][3] == f"{before / 2000:.2f}x"


def test_compressed_tensors_never_make_the_source_larger_than_its_file() -> None:
    report = replace(LEFT_OUT, source={"sha256": "0" * 64, "bytes": 3000})
    assert report.comparable_bytes == 3000


def test_the_page_lists_it_and_its_headline_does_not_count_it() -> None:
    page = report_page([("small", LEFT_OUT, 2000)])
    assert "2.62x smaller than 5.25 kB" in page
    assert "<h2>Left out</h2>" in page and ">optimizer state</td>" in page
    assert "<h2>Left out</h2>" not in report_page([("small", REPORT, 2000)])


def test_it_survives_the_artifact_and_older_ones_have_none() -> None:
    document = LEFT_OUT.as_json()
    assert document["left_out"][1] == {
        "key": "optimizer",
        "tensors": 9,
        "bytes": 350,
        "why": "optimizer state",
    }
    assert Report.from_json(document) == LEFT_OUT
    del document["left_out"]
    assert Report.from_json(document).left_out == ()
