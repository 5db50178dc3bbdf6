"""Methods side by side: at equal bytes, measured alike, and no winner that is not one."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from ttcompress.errors import PlanError
from ttcompress.recipe import recipe_from
from ttcompress.reporting.comparison import comparison_tables
from ttcompress.results.comparison import Cell, Comparison, Row
from ttcompress.workflows.compare import compare
from ttcompress.workflows.compress import build
from ttcompress.workflows.job import prepare
from ttcompress.workflows.methods import METHODS, method_recipe


@pytest.fixture(scope="module")
def found(case) -> Comparison:
    options = {"name": "language-model", "text": str(case.path.parent / "text.txt")}
    task = options | {"batch": 8, "steps": 20}
    return compare(case.path, [3, 40], {"version": 1, "budget": {"factor": 2}, "task": task})


def test_every_method_has_a_cell_at_every_factor(found) -> None:
    assert [[cell.method for cell in row.cells] for row in found.rows] == [list(METHODS)] * 2
    assert [row.factor for row in found.rows] == [3, 40]


def test_methods_stand_at_the_factor_asked_or_say_why_not(found) -> None:
    for row in found.rows:
        for cell in row.cells:
            if cell.factor is None:
                assert cell.bytes is None
                assert "is out of reach" in cell.why or "not installed" in cell.why
            elif cell.method != "svd" or row.factor == 3:  # a rank of 1 is the least
                assert cell.factor == pytest.approx(row.factor, rel=0.12)
                assert cell.factor >= row.factor


def test_few_bits_alone_end_before_factor_40(found) -> None:
    cell = next(cell for cell in found.rows[1].cells if cell.method == "quantised")
    assert "factor 40 is out of reach" in cell.why
    assert cell.metric is None
    assert all("quantised" not in found.winners(found.rows[1], q) for q in found.quantities)


def test_the_figures_are_those_of_the_models(case, found) -> None:
    asked = method_recipe("mps", recipe_from(RECIPE), 3, lambda: ())
    totals = build(prepare(case.checkpoint, asked)).report.totals["weights"]
    cell = found.rows[0].cells[0]
    assert (cell.params, cell.bytes) == (totals.params_after, totals.bytes_after)
    assert cell.multiply_adds == totals.multiply_adds_after
    assert found.dense.bytes == totals.bytes_before


RECIPE = {
    "version": 1,
    "budget": {"factor": 2},
    "rules": [
        {"weights": "embedding", "format": "keep"},
        {"weights": "linear", "format": "dense", "store": "int8"},
    ],
    "default": "decompose",
}


def test_svd_cuts_each_weight_by_the_same_factor(case) -> None:
    weights = case.checkpoint.weights
    recipe = method_recipe("svd", recipe_from(RECIPE), 3, lambda: weights)
    report = build(prepare(case.checkpoint, recipe)).report
    decomposed = [w for w in report.weights if w.format == "mps"]
    assert {w.role for w in decomposed} == {"recurrent"}
    for entry in decomposed:
        assert entry.store == "int8" and len(entry.ranks) == 1
        one_more = sum(entry.row_modes) + sum(entry.column_modes)
        assert entry.bytes_after <= entry.bytes_before / 3 < entry.bytes_after + 2 * one_more


def test_what_the_recipe_keeps_or_rounds_stays_so_for_every_method(case) -> None:
    for method in METHODS:
        recipe = method_recipe(method, recipe_from(RECIPE), 3, lambda: case.checkpoint.weights)
        made = build(prepare(case.checkpoint, recipe))
        stores = {w.name: (w.format, w.store) for w in made.report.weights}
        assert "embedding.weight" not in stores
        assert stores["head.weight"] == ("dense", "int8")


def test_those_that_tie_all_win_and_direction_counts() -> None:
    cells = (
        Cell("a", params=2, bytes=1, metric=0.9),
        Cell("b", params=2, bytes=1, metric=0.8),
        Cell("c", why="cannot"),
    )
    row = Row(4, cells)
    found = Comparison(Cell("dense"), (row,), 35, {}, "accuracy", True)
    by_field = {q.field: found.winners(row, q) for q in found.quantities}
    assert by_field["params"] == ("a", "b")
    assert by_field["metric"] == ("a",)
    assert by_field["bytes"] == ()
    lower = Comparison(Cell("dense"), (row,), 35, {}, "perplexity", False)
    assert lower.winners(row, lower.quantities[-1]) == ("b",)


def test_the_tables_are_narrow_enough_for_a_terminal(found) -> None:
    for table in comparison_tables(found):
        widths = [
            max(len(c.heading), *(len(row[k]) for row in table.rows))
            for k, c in enumerate(table.columns)
            if not c.spare
        ]
        assert sum(widths) + len(widths) - 1 <= 80


def bars(found: Comparison) -> list[tuple[str, ...]]:
    return [row for table in comparison_tables(found)[1::2] for row in table.rows]


def test_bars_are_of_what_was_lost_on_one_scale() -> None:
    rows = (
        Row(4, (Cell("a", relative_error=0.1), Cell("b", relative_error=0.4))),
        Row(8, (Cell("a", relative_error=0.8), Cell("b", why="cannot"))),
    )
    assert bars(Comparison(Cell("dense"), rows, 35, {})) == [
        ("a", "0.1", "━" * 4),
        ("b", "0.4", "━" * 16),
        ("a", "0.8", "━" * 32),
    ]


@pytest.mark.parametrize(("higher_is_better", "lengths"), [(True, [0, 4, 32]), (False, [32, 0, 0])])
def test_bars_of_a_metric_are_its_drop(higher_is_better, lengths) -> None:
    cells = tuple(Cell(name, metric=m) for name, m in (("a", 0.95), ("b", 0.85), ("c", 0.5)))
    found = Comparison(
        Cell("dense", metric=0.9), (Row(4, cells),), 35, {}, "score", higher_is_better
    )
    shown = bars(found)
    assert [(name, value) for name, value, _ in shown] == [
        ("a", "0.95"),
        ("b", "0.85"),
        ("c", "0.5"),
    ]
    assert [len(bar) for _, _, bar in shown] == lengths


def test_the_command_prints_one_document(case, monkeypatch, tmp_path) -> None:
    import json

    from typer.testing import CliRunner

    from ttcompress.cli import app

    monkeypatch.chdir(tmp_path)
    given = ["compare", str(case.path), "--factors", "3", "--json"]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["rows"][0]["winners"]["bytes"] == []
    assert document["metric"] is None and document["rows"][0]["cells"]["mps"]["metric"] is None
    for wrong in ("1", "two", ""):
        assert (
            CliRunner().invoke(app, ["compare", str(case.path), "--factors", wrong]).exit_code == 2
        )


def test_what_is_finished_is_shown_when_it_ends_early(case, monkeypatch) -> None:
    from typer.testing import CliRunner

    from ttcompress.cli import app

    made = []

    def build_twice(job):
        made.append(job)
        if len(made) > len(METHODS) - 1:  # codec is not built
            raise KeyboardInterrupt
        return build(job)

    monkeypatch.setattr("ttcompress.workflows.compare.build", build_twice)
    result = CliRunner().invoke(app, ["compare", str(case.path), "--factors", "3,4", "--json"])
    assert result.exit_code == 130
    assert [row["factor"] for row in json.loads(result.stdout)["rows"]] == [3]
    assert "ended after 1 of 2 factors" in result.stderr


def test_calibration_is_for_our_methods_alone(case) -> None:
    recipe = recipe_from(RECIPE | {"calibration": {"batches": 4}})
    weights = case.checkpoint.weights
    calibrated = [m for m in METHODS if method_recipe(m, recipe, 3, lambda: weights).calibration]
    assert calibrated == ["mps", "mpo", "auto"]


@pytest.mark.parametrize(
    ("layer", "dtype"),
    [
        (nn.LSTM(6, 12), torch.float16),
        (nn.LSTM(6, 12, bidirectional=True), torch.float64),
        (nn.LSTMCell(6, 12), torch.float32),
    ],
)
def test_layers_of_any_type_and_cells_are_timed(layer, dtype, tmp_path) -> None:
    path = tmp_path / "model.pt"
    torch.save({f"layer.{name}": t.to(dtype) for name, t in layer.state_dict().items()}, path)
    found = compare(path, [2])
    cells = [cell for cell in found.rows[0].cells if not cell.why]
    times = [found.dense.milliseconds, *(cell.milliseconds for cell in cells)]
    assert min(times) > 0.05  # 35 steps take longer; a call of nothing does not


def test_where_no_method_is_left_the_reason_is_told(tiny_checkpoint) -> None:
    rules = [{"weights": "absent"}]
    recipe = {"version": 1, "budget": {"factor": 2}, "rules": rules, "default": "decompose"}
    with pytest.raises(PlanError, match="absent"):
        compare(tiny_checkpoint, [2], recipe)


def test_a_layer_that_cannot_be_run_is_not_timed(tmp_path) -> None:
    state = nn.ModuleDict({"rnn": nn.LSTM(16, 16)}).state_dict()
    torch.save({**state, "rnn.bias_l0": torch.ones(64)}, tmp_path / "model.pt")
    found = compare(tmp_path / "model.pt", [4])
    cells = [found.dense, *found.rows[0].cells]
    assert all(cell.milliseconds is None for cell in cells)
