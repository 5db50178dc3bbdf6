"""Shows a comparison: for each factor a table of the methods, and bars of what each one loses."""

from __future__ import annotations

from ttcompress.reporting.numbers import cell_text
from ttcompress.reporting.table import Column, Table, tabulate
from ttcompress.results.comparison import Cell, Comparison, Quantity, Row

BAR_WIDTH = 32
WHOLE, HALF = "━", "╸"


def comparison_tables(found: Comparison) -> list[Table]:
    """For each factor, a table of quantities by method, then one with bars."""
    lost = (_lost(found, cell) for row in found.rows for cell in row.cells)
    most = max(lost, default=0.0) or 1.0
    return [
        table
        for row in found.rows
        for table in (_quantities_table(found, row), _bars_table(found, row, most))
    ]


def _quantities_table(found: Comparison, row: Row) -> Table:
    def best(quantity: Quantity) -> str:
        winners = found.winners(row, quantity)
        return " ".join(winners) if len(winners) < 3 else f"{len(winners)} tied"

    columns = (
        Column(f"factor {row.factor:g}", name=True),
        Column("dense", right=True, spare=1),
        *(Column(cell.method, right=True) for cell in row.cells),
        Column("best", spare=2),
    )
    rows = []
    for quantity in found.quantities:
        values = (cell_text(getattr(cell, quantity.field)) for cell in (found.dense, *row.cells))
        rows.append((quantity.title, *values, best(quantity)))
    return Table(columns, tuple(rows))


def _bars_table(found: Comparison, row: Row, most: float) -> Table:
    """What each method loses of the metric, or else its error; one scale for all factors."""
    value = "relative_error" if found.metric is None else "metric"
    return tabulate(
        (cell for cell in row.cells if not cell.why),
        {
            Column(f"factor {row.factor:g}", name=True): lambda cell: cell.method,
            Column(found.metric or "error", right=True): lambda cell: getattr(cell, value),
            Column("lost", name=True): lambda cell: _bar(_lost(found, cell) / most),
        },
    )


def _lost(found: Comparison, cell: Cell) -> float:
    """How much worse than the dense model; 0 if better or out of reach."""
    if found.metric is None:
        return cell.relative_error or 0.0
    if cell.metric is None or found.dense.metric is None:
        return 0.0
    rise = cell.metric - found.dense.metric
    return max(0.0, -rise if found.higher_is_better else rise)


def _bar(share: float) -> str:
    """A line as long as a share of `BAR_WIDTH`, to half a character.

    >>> _bar(0.25), _bar(0.02)
    ('━━━━━━━━', '╸')
    """
    halves = round(2 * BAR_WIDTH * share)
    return WHOLE * (halves // 2) + HALF * (halves % 2)


def comparison_remarks(found: Comparison) -> list[str]:
    """What the table does not show: the closed forms, and why a cell is empty."""
    return [f"{name}: {formula}" for name, formula in found.models.items()] + [
        f"{cell.method} at factor {row.factor:g}: {cell.why}"
        for row in found.rows
        for cell in row.cells
        if cell.why
    ]
