"""What `compare` returns: every method at every factor, and which wins by each quantity."""

from __future__ import annotations

from dataclasses import dataclass

from ttcompress.model.report import Json
from ttcompress.system.json import plain


@dataclass(frozen=True)
class Cell:
    """One method at one factor, over the decomposed weights.

    `factor` is the one reached. `multiply_adds` is per time step, by the closed form of the
    format; `milliseconds` is measured, for `Comparison.steps` steps at batch 1. `metric` is the
    task's counting one. All are None if the method cannot reach the factor; `why` says so.
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
    """One line of the comparison: its field, its title, and which direction is better."""

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
        """What is compared; the metric only if a task measured it."""
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
        """The best methods of a row; several if they tie, none where bytes are equal by rule."""
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
        document = plain(self)
        del document["dense"]["method"]
        for row, written in zip(self.rows, document["rows"], strict=True):
            written["cells"] = {cell.pop("method"): cell for cell in written["cells"]}
            written["winners"] = {q.field: list(self.winners(row, q)) for q in self.quantities}
        keys = ("metric", "higher_is_better", "steps", "dense", "rows", "models")
        return {key: document[key] for key in keys}
