"""A budget as asked and the figures that answer it enter; lines of asked and achieved leave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ttcompress.model.report import Json, Report, WeightReport, times_fewer
from ttcompress.planning.formats import is_whole
from ttcompress.recipe.rules import selects
from ttcompress.results.plan import PlannedWeightReport, PlanReport
from ttcompress.stores import AUTO


@dataclass(frozen=True)
class Answer:
    """One key of the budget: what was asked, and what the result has."""

    name: str
    asked: str
    achieved: str


def answers(report: Report | PlanReport, file_bytes: int | None = None) -> tuple[Answer, ...]:
    """Asked and achieved for every key of the budget; `size` only where the file is there."""
    effective = report.recipe["effective"]
    budget: Mapping[str, float | str] = effective.get("budget", {})
    totals = report.totals["weights"]
    chosen = [weight for weight in report.weights if _is_chosen(weight, effective)]
    errors = [error for weight in chosen if (error := error_of(weight)) is not None]
    ranks = [rank for weight in report.weights for rank in weight.ranks]
    fewer = times_fewer(totals.multiply_adds_before, totals.multiply_adds_after)
    achieved = {
        "factor": f"{totals.compression_factor:.2f}",
        "size": "" if file_bytes is None else f"{file_bytes:,} bytes",
        "params": f"{totals.params_after:,}",
        "multiply_adds": f"{fewer:.2f}",
        "tolerance": f"{max(errors):.4g}" if errors else "",
        "rank": f"{max(ranks)}" if ranks else "",
        "drop": _dropped(report),
    }
    return tuple(
        Answer(name, _asked(name, value), achieved[name])
        for name, value in budget.items()
        if achieved.get(name)
    )


def _is_chosen(weight: WeightReport | PlannedWeightReport, effective: Json) -> bool:
    """Whether the budget chose a weight's ranks or its store: its rule fixed neither."""
    rules = effective.get("rules", ())
    rule: Json = next((rule for rule in rules if selects(rule["weights"], weight)), {})
    if isinstance(rule.get("ranks"), Sequence):
        return False
    store = rule.get("store") or effective.get("store", AUTO)
    return not is_whole(rule.get("format")) or store == AUTO


def _dropped(report: Report | PlanReport) -> str:
    """Of the counting metric, in its unit and as a fraction of what it was."""
    if not isinstance(report, Report) or not report.metrics:
        return ""
    counting = next(iter(report.metrics.values()))
    drop, before = counting["drop"], abs(counting["before"])
    return f"{drop:.4g}" + (f" ({100 * drop / before:.2f}%)" if before else "")


def error_of(weight: WeightReport | PlannedWeightReport) -> float | None:
    """The relative error of a weight: as measured, or as expected by the plan."""
    return weight.relative_error if isinstance(weight, WeightReport) else weight.expected_error


def _asked(name: str, value: float | str) -> str:
    if isinstance(value, str):
        return value
    if name == "size":
        return f"{value:,} bytes"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"
