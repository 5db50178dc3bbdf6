"""Shows a sweep: a table of the dense model and all points, and remarks."""

from __future__ import annotations

from collections.abc import Iterable

from ttcompress.recipe.wording import counted
from ttcompress.reporting.batch import outcome_remarks
from ttcompress.reporting.conclusion import NOT_MEASURED
from ttcompress.reporting.numbers import cell_text, error_text, times_text
from ttcompress.reporting.table import Column, Table
from ttcompress.results.sweep import Figures, Sweep

STANDS_IN = "without a metric, points are judged by the largest error of any weight"


def sweep_table(found: Sweep) -> Table:
    """A row for the dense model, then one for each point."""

    def row(name: str, figures: Figures | None, factor: float | None, place: str) -> Iterable[str]:
        if figures is None:
            return (name, *("-",) * 6)
        worth = found.worth(figures)
        return (
            name,
            cell_text(figures.bytes),
            "-" if factor is None else f"{factor:.2f}",
            error_text(worth) if found.metric is None else f"{worth:.4g}",
            cell_text(figures.multiply_adds),
            times_text(found.dense.multiply_adds, figures.multiply_adds),
            place,
        )

    columns = (
        Column("point", name=True),
        Column("bytes", right=True),
        Column("factor", right=True, spare=2),
        Column(found.metric or "largest error", right=True),
        Column("multiply-adds", right=True),
        Column("fewer", right=True, spare=1),
        Column("front", name=True),
    )
    rows = [row("dense", found.dense, None, "")]
    for point in found.points:
        ahead = found.ahead(point)
        place = f"behind {ahead.name}" if ahead else "front"
        rows.append(row(point.name, point.figures, point.outcome.factor, place))
    return Table(columns, tuple(map(tuple, rows)))


def sweep_remarks(found: Sweep) -> tuple[str, ...]:
    """What the table does not show: what was not measured, why a point is missing, the cache."""
    cached = sum(point.outcome.cached for point in found.points)
    from_cache = f", {cached} from the cache" if cached else ""
    return (
        *((NOT_MEASURED, STANDS_IN) if found.metric is None else ()),
        *(line for point in found.points for line in outcome_remarks(point.outcome)),
        f"{counted(len(found.points), 'point')} in {found.seconds:.1f} s{from_cache}",
        f"artifacts are in {found.points[0].path.parent.name}; "
        "--pick NAME copies one, with its recipe",
    )
