"""What a recipe says about each weight enters; its table and its plain form leave."""

from __future__ import annotations

from collections.abc import Iterable

from ttcompress.model.report import Json
from ttcompress.recipe import Assignment
from ttcompress.reporting.report import modes_text
from ttcompress.reporting.table import Column, Table


def assignments_json(assignments: Iterable[Assignment]) -> list[Json]:
    """One object for each weight; `rule` counts from 0, and null is the recipe's default."""
    return [
        {
            "name": one.weight.name,
            "role": one.weight.role,
            "shape": list(one.weight.shape),
            "rule": one.index,
            "format": one.format,
            "store": one.store,
            "row_modes": one.row_modes,
            "column_modes": one.column_modes,
            "ranks": one.ranks,
        }
        for one in assignments
    ]


def assignments_table(assignments: Iterable[Assignment]) -> Table:
    """One row for each weight, with the rule that takes it."""
    columns = (
        Column("weight", name=True),
        Column("role", spare=2),
        Column("shape", right=True, name=True, spare=1),
        Column("rule", name=True),
        Column("format"),
        Column("modes"),
        Column("ranks"),
        Column("store"),
    )
    return Table(columns, tuple(map(_row, assignments)))


def _row(one: Assignment) -> tuple[str, ...]:
    rows, columns = one.weight.shape
    by_rule = "default" if one.rule is None else f"rules[{one.index}] {one.rule.weights}"
    given = one.row_modes and one.column_modes
    return (
        one.weight.name,
        one.weight.role,
        f"{rows} x {columns}",
        by_rule,
        one.format,
        modes_text(one.row_modes or (), one.column_modes or ()) if given else "-",
        _ranks(one.ranks),
        one.store,
    )


def _ranks(ranks: tuple[int, ...] | int | None) -> str:
    if isinstance(ranks, int):
        return f"at most {ranks}"
    return " ".join(map(str, ranks)) if ranks else "-"
