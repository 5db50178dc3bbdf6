"""A sweep enters; its table and the lines below it leave."""

from __future__ import annotations

from collections.abc import Iterator

from ttcompress.model.report import times_fewer
from ttcompress.recipe.wording import counted
from ttcompress.reporting.batch import remarks_of
from ttcompress.reporting.report import NOT_MEASURED, error_text
from ttcompress.reporting.table import Column, Table
from ttcompress.results.sweep import Figures, Point, Sweep

STANDS_IN = "largest error, of any weight, stands in for the metric"


def sweep_table(found: Sweep) -> Table:
    """One row for each point, and the dense model above them."""
    columns = (
        Column("point", name=True),
        Column("bytes", right=True),
        Column("factor", right=True, spare=2),
        Column(found.metric or "largest error", right=True),
        Column("multiply-adds", right=True),
        Column("fewer", right=True, spare=1),
        Column("front", name=True),
    )
    rows = (_row(found, point) for point in found.points)
    return Table(columns, (("dense", *_figures(found, found.dense, None), ""), *rows))


def sweep_remarks(found: Sweep) -> tuple[str, ...]:
    """What the table leaves out: what was not measured, why a point is not there, the cache."""
    cached = sum(point.outcome.cached for point in found.points)
    from_cache = f", {cached} from the cache" if cached else ""
    return (
        *((NOT_MEASURED, STANDS_IN) if found.metric is None else ()),
        *(line for point in found.points for line in remarks_of(point.outcome)),
        f"{counted(len(found.points), 'point')} in {found.seconds:.1f} s{from_cache}",
        f"artifacts: {found.points[0].path.parent.name}; --pick NAME takes one, with its recipe",
    )


def _row(found: Sweep, point: Point) -> tuple[str, ...]:
    if point.figures is None:
        return (point.name, "-", "-", "-", "-", "-", "-")
    ahead = found.ahead(point)
    place = "front" if ahead is None else f"behind {ahead.name}"
    return (point.name, *_figures(found, point.figures, point.outcome.factor), place)


def _figures(found: Sweep, figures: Figures, factor: float | None) -> Iterator[str]:
    yield f"{figures.bytes:,}"
    yield "-" if factor is None else f"{factor:.2f}"
    worth = found.worth(figures)
    yield error_text(worth) if found.metric is None else f"{worth:.4g}"
    yield f"{figures.multiply_adds:,}"
    yield f"{times_fewer(found.dense.multiply_adds, figures.multiply_adds):.2f}x"
