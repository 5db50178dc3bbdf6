"""Values of a finished batch: exit code, table, remarks, pages, JUnit, and the baseline."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ttcompress.errors import InputError
from ttcompress.recipe import Drop
from ttcompress.recipe.manifest import Tolerance
from ttcompress.reporting.batch import batch_markdown, batch_remarks, batch_table
from ttcompress.reporting.junit import junit
from ttcompress.results.batch import BatchResult
from ttcompress.results.outcome import Outcome
from ttcompress.workflows.baseline import judge_against, read_baseline

LOSS = {"loss": {"before": 2.0, "after": 2.2, "drop": 0.2, "higher_is_better": False}}
KEPT = {"name": "min_factor", "limit": 8.0, "value": 8.01, "ok": True}
BROKEN = {"name": "max_size", "limit": 1000, "value": 1200, "ok": False}
DONE = Outcome("a.small.st", "a", "small", 1.5, 1, False, 9000, 1200, 8.01, LOSS, (KEPT,))
LIMITED = replace(DONE, file="b.st", model="b", limits=(KEPT, BROKEN))
ERROR = "ValueError: \x1b[31mno | <good>\ntrace line\n\x00"
FAILED = Outcome("c.st", "c", "small", attempts=3, error=ERROR, kind="ValueError")
CACHED = replace(DONE, file="d.st", model="d", cached=True, metrics=None, limits=())


def result(*outcomes: Outcome) -> BatchResult:
    return BatchResult("models.yaml", outcomes, 3.25)


ALL = result(DONE, LIMITED, FAILED, CACHED)


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ([DONE, CACHED], 0),
        ([DONE, LIMITED], 4),
        ([FAILED, DONE], 5),
        ([LIMITED, FAILED], 5),
        ([replace(LIMITED, cached=True)], 4),
    ],
)
def test_the_worst_outcome_gives_the_exit_code(outcomes, code) -> None:
    assert result(*outcomes).exit_code == code


def test_an_outcome_comes_back_from_json() -> None:
    for outcome in ALL.outcomes:
        assert Outcome.from_json(json.loads(json.dumps(outcome.as_json()))) == outcome


def test_json_tells_every_job_and_the_exit_code() -> None:
    document = ALL.as_json()
    assert [job["status"] for job in document["jobs"]] == [
        "done",
        "limit broken",
        "failed",
        "done",
    ]
    assert (document["manifest"], document["seconds"], document["exit_code"]) == (
        "models.yaml",
        3.25,
        5,
    )


def test_the_table_has_a_row_for_each_job() -> None:
    assert batch_table(ALL).rows == (
        (
            *("a", "small", "9,000", "1,200", "8.01", "loss", "2", "2.2"),
            *("kept", "1.5", "done"),
        ),
        (
            *("b", "small", "9,000", "1,200", "8.01", "loss", "2", "2.2"),
            *("BROKEN max_size", "1.5", "limit broken"),
        ),
        ("c", "small", "-", "-", "-", "-", "-", "-", "-", "0.0", "failed"),
        ("d", "small", "9,000", "1,200", "8.01", "-", "-", "-", "-", "1.5", "done, cached"),
    )


def test_remarks_say_why_and_count() -> None:
    assert batch_remarks(ALL) == (
        "b under small: limit max_size 1,000: 1,200, BROKEN",
        "c under small: ValueError: \x1b[31mno | <good>",
        "c under small: started 3 times, because its worker process died",
        "4 jobs in 3.2 s: 2 done, 1 failed, 1 limit broken, 1 from the cache",
    )


def test_markdown_is_a_heading_a_table_and_a_list() -> None:
    lines = batch_markdown(ALL).splitlines()
    assert lines[0].startswith("# models.yaml: 4 jobs in 3.2 s")
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + 4
    cells = {line.replace("\\|", "").count("|") for line in table}
    assert cells == {12}
    assert "- c under small: ValueError: \x1b\\[31mno \\| &lt;good>" in lines


# What the JUnit schemas of Ant and of Jenkins both allow: required and further attributes, children
# in their order.
SCHEMA = {
    "testsuites": (set(), set(), ["testsuite"]),
    "testsuite": (
        {"id", "package", "name", "timestamp", "hostname", "tests", "failures", "errors", "time"},
        {"skipped"},
        ["properties", "testcase", "system-out", "system-err"],
    ),
    "properties": (set(), set(), []),
    "testcase": ({"classname", "name", "time"}, set(), ["error", "failure"]),
    "error": ({"type"}, {"message"}, []),
    "failure": ({"type"}, {"message"}, []),
    "system-out": (set(), set(), []),
    "system-err": (set(), set(), []),
}


def check(element: ElementTree.Element) -> None:
    required, further, children = SCHEMA[element.tag]
    assert required <= set(element.keys()) <= required | further, element.tag
    order = [children.index(child.tag) for child in element]
    assert order == sorted(order), element.tag
    for child in element:
        check(child)


def test_junit_keeps_to_the_schemas() -> None:
    root = ElementTree.fromstring(junit(ALL))
    check(root)
    (suite,) = root
    assert [len(suite.findall(tag)) for tag in ("properties", "system-out", "system-err")] == [
        1
    ] * 3
    assert {name: int(suite.get(name, "")) for name in ("tests", "failures", "errors")} == {
        "tests": 4,
        "failures": 1,
        "errors": 1,
    }
    assert float(suite.get("time", "")) == 3.25
    assert len(suite.get("timestamp", "")) == len("2026-01-01T00:00:00")


def test_junit_has_a_case_for_each_job() -> None:
    (suite,) = ElementTree.fromstring(junit(ALL))
    cases = suite.findall("testcase")
    assert [(c.get("classname"), c.get("name"), c.get("time")) for c in cases[:2]] == [
        ("a", "small", "1.500"),
        ("b", "small", "1.500"),
    ]
    assert [[child.tag for child in case] for case in cases] == [[], ["failure"], ["error"], []]
    failure, error = cases[1][0], cases[2][0]
    assert failure.get("type") == "max_size"
    assert failure.text == "limit max_size 1,000: 1,200, BROKEN"
    assert error.get("type") == "ValueError"
    assert error.get("message") == "ValueError: ?[31mno | <good>"
    assert error.text == "ValueError: ?[31mno | <good>\ntrace line\n?"


def names(outcome: Outcome) -> list[tuple[str, bool]]:
    return [(limit["name"], limit["ok"]) for limit in outcome.limits if "baseline" in limit["name"]]


def after(loss: float, size: int, higher_is_better: bool = False) -> Outcome:
    entry = LOSS["loss"] | {"after": loss, "higher_is_better": higher_is_better}
    return replace(DONE, metrics={"loss": entry}, bytes_after=size)


@pytest.mark.parametrize(
    ("loss", "size", "higher", "metric_ok", "size_ok"),
    [
        (1.01, 1000, False, True, True),
        (1.0100001, 1000, False, False, True),
        (0.5, 1010, False, True, True),
        (1.0, 1011, False, True, False),
        (0.99, 900, True, True, True),
        (0.9899, 900, True, False, True),
        (1.5, 900, True, True, True),
    ],
)
def test_worse_than_the_baseline_breaks_a_limit(loss, size, higher, metric_ok, size_ok) -> None:
    before = {DONE.file: after(1.0, 1000, higher)}
    judged = judge_against(before, after(loss, size, higher), Tolerance())
    assert names(judged) == [("baseline_size", size_ok), ("baseline_metric", metric_ok)]
    assert judged.limits[0] == KEPT
    assert (judged.status == "done") == (metric_ok and size_ok)


def test_the_manifest_sets_the_tolerance() -> None:
    before, now = {DONE.file: after(1.0, 1000)}, after(1.4, 1099)
    loose = Tolerance(metric=Drop(0.5, relative=False), size=Drop(0.1, relative=True))
    assert judge_against(before, now, loose).status == "done"
    strict = Tolerance(metric=Drop(0.3, relative=False), size=Drop(98, relative=False))
    assert [ok for _, ok in names(judge_against(before, now, strict))] == [False, False]


@pytest.mark.parametrize(
    ("before", "now", "compared"),
    [
        ({}, DONE, []),
        (None, DONE, []),
        ({"c.st": FAILED}, replace(DONE, file="c.st"), []),
        ({"c.st": replace(DONE, file="c.st")}, FAILED, []),
        ({DONE.file: replace(DONE, metrics=None)}, DONE, ["baseline_size"]),
        ({DONE.file: replace(DONE, metrics={"f1": LOSS["loss"]})}, DONE, ["baseline_size"]),
    ],
)
def test_only_what_both_have_is_compared(before, now, compared) -> None:
    judged = judge_against(before, now, Tolerance())
    assert [name for name, _ in names(judged)] == compared


def test_a_baseline_is_read_from_the_json_of_a_batch(tmp_path: Path) -> None:
    path = tmp_path / "before.json"
    path.write_text(json.dumps(ALL.as_json()))
    assert read_baseline(path)["a.small.st"] == DONE
    for text in ("[", "[]", '{"jobs": [{}]}', '{"jobs": 3}', "3"):
        path.write_text(text)
        with pytest.raises(InputError, match="is not the JSON of a batch"):
            read_baseline(path)
    with pytest.raises(InputError, match="there is no such baseline"):
        read_baseline(tmp_path / "absent.json")
    with pytest.raises(InputError, match="is not a regular file"):
        read_baseline(tmp_path)
