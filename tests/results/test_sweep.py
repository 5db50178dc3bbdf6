"""Which points are on the front, by figures set by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ttcompress.errors import PlanError, RecipeError
from ttcompress.recipe import recipe_from
from ttcompress.reporting.conclusion import NOT_MEASURED
from ttcompress.reporting.sweep import sweep_remarks, sweep_table
from ttcompress.results.outcome import Outcome
from ttcompress.results.sweep import Figures, Point, Sweep

RECIPE = recipe_from({"version": 1, "budget": {"factor": 4}})


def point(name: str, figures: tuple | None, kind: str = "", **more) -> Point:
    error = kind and "8 asked, 4 at most"
    outcome = Outcome(f"{name}.safetensors", "m", name, error=error, kind=kind, **more)
    found = None if figures is None else Figures(*figures)
    return Point("mps", 2.0, RECIPE, Path("m.sweep") / outcome.file, outcome, found)


def swept(*points: Point, metric: str | None = "loss", higher: bool = False) -> Sweep:
    dense = Figures(100, 100, 0.0, None if metric is None else 1.0)
    return Sweep("m.pt", points, dense, metric, higher, 2.0)


def names(found: Sweep) -> list[str]:
    return [point.name for point in found.front]


def test_on_the_front_is_what_nothing_is_ahead_of() -> None:
    found = swept(
        point("large", (50, 50, 0.1, 1.1)),
        point("small", (10, 50, 0.1, 1.5)),
        point("fast", (50, 20, 0.1, 1.2)),
        point("behind", (50, 50, 0.1, 1.3)),
        point("far behind", (60, 60, 0.1, 1.4)),
    )
    assert names(found) == ["small", "large", "fast"]
    ahead = [found.ahead(one) for one in found.points]
    assert [one and one.name for one in ahead] == [None, None, None, "large", "large"]


def test_a_format_has_a_front_of_its_own_without_speed() -> None:
    found = swept(
        point("small", (10, 50, 0.1, 1.5)),
        point("better", (20, 50, 0.1, 1.2)),
        point("behind", (30, 1, 0.1, 1.3)),
        point("failed", None, "PlanError"),
    )
    assert [found.best_of_format(one) for one in found.points] == [True, True, False, False]
    other = replace(found.points[2], format="mpo")
    assert replace(found, points=(*found.points[:2], other)).best_of_format(other)


def test_points_that_are_equal_are_both_on_it() -> None:
    found = swept(point("a", (5, 5, 0.1, 1.0)), point("b", (5, 5, 0.2, 1.0)))
    assert names(found) == ["a", "b"]


@pytest.mark.parametrize(
    ("metric", "higher", "front"),
    [("loss", False, ["a"]), ("accuracy", True, ["b"]), (None, False, ["c"])],
)
def test_what_counts_is_the_metric_in_its_direction_or_the_error(metric, higher, front) -> None:
    found = swept(
        point("a", (5, 5, 0.3, 1.0)),
        point("b", (5, 5, 0.2, 2.0)),
        point("c", (5, 5, 0.1, 1.5)),
        metric=metric,
        higher=higher,
    )
    assert names(found) == front
    assert (NOT_MEASURED in sweep_remarks(found)) == (metric is None)


@pytest.mark.parametrize("higher", [False, True])
def test_a_metric_that_is_no_number_is_the_worst(higher) -> None:
    found = swept(
        point("a", (5, 5, 0.3, float("nan"))), point("b", (5, 5, 0.2, 1.0)), higher=higher
    )
    assert names(found) == ["b"]


BROKEN = ({"name": "max_drop", "limit": 0.1, "value": 0.2, "ok": False},)


@pytest.mark.parametrize(
    ("points", "code"),
    [
        ([point("b", None, "PlanError")], 0),
        ([point("b", None, "TrainingError")], 5),
        ([point("b", (5, 5, 0.1, 1.0), limits=BROKEN)], 4),
        ([point("b", (5, 5, 0.1, 1.0), limits=BROKEN), point("c", None, "WorkerDied")], 5),
    ],
)
def test_out_of_reach_is_no_failure(points, code) -> None:
    found = swept(point("a", (5, 5, 0.1, 1.0)), *points)
    assert found.exit_code == code == found.as_json()["exit_code"]
    assert names(found)[0] == "a"


def test_the_table_shows_every_point_and_the_remarks_why_one_is_not_there() -> None:
    found = swept(
        point("mps@4", (25, 50, 0.1, 1.5), factor=4.01),
        point("mpo@4", (25, 100, 0.1, 1.5), factor=4.02),
        point("mpo@8", None, "PlanError"),
    )
    table = sweep_table(found)
    assert [column.heading for column in table.columns][3] == "loss"
    assert table.rows == (
        ("dense", "100", "-", "1", "100", "1.00x", ""),
        ("mps@4", "25", "4.01", "1.5", "50", "2.00x", "front"),
        ("mpo@4", "25", "4.02", "1.5", "100", "1.00x", "behind mps@4"),
        ("mpo@8", "-", "-", "-", "-", "-", "-"),
    )
    assert "m under mpo@8: 8 asked, 4 at most" in sweep_remarks(found)


def test_a_point_that_is_not_there_cannot_be_picked() -> None:
    found = swept(point("mps@4", (25, 50, 0.1, 1.5)), point("mpo@8", None, "PlanError"))
    assert found.point("mps@4") is found.points[0]
    with pytest.raises(RecipeError, match=r"has no point 'mps@5'. Its points are mps@4, mpo"):
        found.point("mps@5")
    with pytest.raises(PlanError, match="mpo@8: 8 asked, 4 at most"):
        found.point("mpo@8")
