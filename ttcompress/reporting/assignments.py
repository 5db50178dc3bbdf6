"""Shows which rule of a recipe applies to each weight of a model, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Iterable

from ttcompress.model.report import Json
from ttcompress.recipe import Assignment
from ttcompress.reporting.numbers import modes_text
from ttcompress.reporting.table import Column, Table, tabulate
from ttcompress.system.text import shape_text

_CHOSEN = ("format", "store", "row_modes", "column_modes", "ranks")


def assignments_json(assignments: Iterable[Assignment]) -> list[Json]:
    """One object for each weight; `rule` counts from 0, and null means the recipe's default."""
    return [
        {
            "name": one.weight.name,
            "role": one.weight.role,
            "shape": list(one.weight.shape),
            "rule": one.index,
            **{key: getattr(one, key) for key in _CHOSEN},
        }
        for one in assignments
    ]


def assignments_table(assignments: Iterable[Assignment]) -> Table:
    """One row for each weight, with the rule that applies to it."""

    def rule(one: Assignment) -> str:
        return "default" if one.rule is None else f"rules[{one.index}] {one.rule.weights}"

    def ranks(one: Assignment) -> str:
        if isinstance(one.ranks, int):
            return f"at most {one.ranks}"
        return " ".join(map(str, one.ranks or ())) or "-"

    return tabulate(
        assignments,
        {
            Column("weight", name=True): lambda one: one.weight.name,
            Column("role", spare=2): lambda one: one.weight.role,
            Column("shape", right=True, name=True, spare=1): lambda one: shape_text(
                one.weight.shape
            ),
            Column("rule", name=True): rule,
            Column("format"): lambda one: one.format,
            Column("modes"): lambda one: modes_text(one.row_modes, one.column_modes),
            Column("ranks"): ranks,
            Column("store"): lambda one: one.store,
        },
    )
