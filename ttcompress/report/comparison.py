"""What `compare` found, as values and as tables: methods side by side at equal bytes. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from ttcompress.report.model import Json
from ttcompress.report.tables import Column, Table

BAR_WIDTH = 32
WHOLE, HALF = "━", "╸"


@dataclass(frozen=True)
class Cell:
    """One method at one factor, over the decomposed weights.

    `factor` is the one reached. `multiply_adds` are of a time step, by the closed form of the
    format; `milliseconds` are measured, for `Comparison.steps` steps at batch 1. `metric` is the
    task's counting one. All are None where the method cannot reach the factor; `why` says so.
    """

    method: str
    factor: float | None = None
    params: int | None = None
    bytes: int | None = None
    relative_error: float | None = None
    multiply_adds: int | None = None
    milliseconds: float | None = None
    metric: float | None = None
    why: str = ""


@dataclass(frozen=True)
class Row:
    """All methods at one factor."""

    factor: float
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Quantity:
    """One line of the comparison: which field, how it is called, and which direction is better."""

    field: str
    title: str
    higher_is_better: bool = False
    wins: bool = True


@dataclass(frozen=True)
class Comparison:
    """Every factor, and the dense model beside it.

    `models` are the closed forms that multiply-adds and params follow, by format.
    """

    dense: Cell
    rows: tuple[Row, ...]
    steps: int
    models: dict[str, str]
    metric: str | None = None
    higher_is_better: bool = False

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """What is compared, the metric only where a task measured it."""
        found = [
            Quantity("params", "params"),
            Quantity("bytes", "bytes", wins=False),
            Quantity("relative_error", "error"),
            Quantity("multiply_adds", "multiply-adds"),
            Quantity("milliseconds", f"ms, {self.steps} steps"),
        ]
        if self.metric is not None:
            found.append(Quantity("metric", self.metric, self.higher_is_better))
        return tuple(found)

    def winners(self, row: Row, quantity: Quantity) -> tuple[str, ...]:
        """The best methods of a row; several where they tie, none where bytes are equal by rule."""
        values = {
            cell.method: float(value)
            for cell in row.cells
            if (value := getattr(cell, quantity.field)) is not None
        }
        if not quantity.wins or not values:
            return ()
        best = (max if quantity.higher_is_better else min)(values.values())
        return tuple(method for method, value in values.items() if value == best)

    def as_json(self) -> Json:
        """Plain dicts and lists, the winners of each row among them."""
        rows = [
            {
                "factor": row.factor,
                "cells": {cell.method: _plain(cell) for cell in row.cells},
                "winners": {q.field: list(self.winners(row, q)) for q in self.quantities},
            }
            for row in self.rows
        ]
        return {
            "metric": self.metric,
            "higher_is_better": self.higher_is_better,
            "steps": self.steps,
            "dense": _plain(self.dense),
            "rows": rows,
            "models": self.models,
        }


def _plain(cell: Cell) -> Json:
    return {key: value for key, value in asdict(cell).items() if key != "method"}


def comparison_tables(found: Comparison) -> list[Table]:
    """For each factor a line for each quantity, a column for each method; below it, bars."""
    most = max((_lost(found, cell) for row in found.rows for cell in row.cells), default=0.0) or 1.0
    return [
        table
        for row in found.rows
        for table in (_quantities_table(found, row), _bars_table(found, row, most))
    ]


def _quantities_table(found: Comparison, row: Row) -> Table:
    columns = (
        Column(f"factor {row.factor:g}", name=True),
        Column("dense", right=True, spare=1),
        *(Column(cell.method, right=True) for cell in row.cells),
        Column("best", spare=2),
    )
    return Table(columns, tuple(_lines(found, row)))


def _lines(found: Comparison, row: Row) -> Iterator[tuple[str, ...]]:
    for quantity in found.quantities:
        values = [_text(getattr(cell, quantity.field)) for cell in (found.dense, *row.cells)]
        winners = found.winners(row, quantity)
        best = " ".join(winners) if len(winners) < 3 else f"{len(winners)} alike"
        yield (quantity.title, *values, best)


def _bars_table(found: Comparison, row: Row, most: float) -> Table:
    """What each method loses, on one scale for all factors: of the metric, or else the error."""
    columns = (
        Column(f"factor {row.factor:g}", name=True),
        Column(found.metric or "error", right=True),
        Column("lost", name=True),
    )
    cells = (
        (
            cell.method,
            _text(cell.relative_error if found.metric is None else cell.metric),
            _bar(_lost(found, cell) / most),
        )
        for cell in row.cells
        if not cell.why
    )
    return Table(columns, tuple(cells))


def _lost(found: Comparison, cell: Cell) -> float:
    """How much worse than the dense model; 0 where better, or out of reach."""
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


def comparison_remarks(found: Comparison) -> tuple[str, ...]:
    """What cannot be read off the table: the closed forms, and why a cell is empty."""
    empty = [
        f"{cell.method} at factor {row.factor:g}: {cell.why}"
        for row in found.rows
        for cell in row.cells
        if cell.why
    ]
    models = (f"{name}: {formula}" for name, formula in found.models.items())
    return (*models, *empty)


def _text(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
