"""What a recipe says about each weight, as `recipes check` shows it."""

from __future__ import annotations

from ttcompress.model.weights import Weight
from ttcompress.recipe import match, recipe_from
from ttcompress.reporting.assignments import assignments_table


def test_ranks_are_shown_as_fixed_capped_or_free() -> None:
    names = {"a.weight": "recurrent", "b.weight": "recurrent", "c.weight": "linear"}
    weights = [Weight(n, (n,), role, (64, 12), "float32") for n, role in names.items()]
    modes = {"row_modes": [8, 8], "column_modes": [12]}
    rules = [
        {"weights": "a.*", **modes, "ranks": [3, 4]},
        {"weights": "b.*", "ranks": 5},
        {"weights": "linear"},
    ]
    recipe = {"version": 1, "rules": rules, "default": "keep", "budget": {"factor": 4}}
    table = assignments_table(match(recipe_from(recipe), weights))
    ranks = [column.heading for column in table.columns].index("ranks")
    assert [row[ranks] for row in table.rows] == ["3 4", "at most 5", "-"]
