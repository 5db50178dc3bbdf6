"""Compares the result with every key of the recipe's budget: `answers`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan

from ttcompress.model.report import BaseReport, Json, Report, WeightReport
from ttcompress.planning.formats import is_whole
from ttcompress.recipe.rules import selects
from ttcompress.stores import AUTO


@dataclass(frozen=True)
class Answer:
    """One key of the budget: the requested value, and the one achieved."""

    name: str
    asked: str
    achieved: str


def answers(report: BaseReport, file_bytes: int | None = None) -> tuple[Answer, ...]:
    """Compare every key of the budget with the result; the file's only if its size is given."""
    effective = report.recipe["effective"]
    budget: Mapping[str, float | str] = effective.get("budget", {})
    totals, model = report.totals["weights"], report.totals["model"]
    chosen = [weight for weight in report.weights if _is_chosen(weight, effective)]
    errors = [w.relative_error for w in chosen if not isnan(w.relative_error)]
    ranks = [rank for weight in report.weights for rank in weight.ranks]
    achieved = {
        "factor": f"{report.factor:.2f}" + (" in flash" if report.flash else ""),
        "model_factor": "" if not file_bytes else f"{model.bytes_before / file_bytes:.2f}",
        "size": "" if file_bytes is None else f"{file_bytes:,} bytes",
        "flash": f"{report.flash.model:,} bytes" if report.flash and report.flash.model else "",
        "params": f"{totals.params_after:,}",
        "multiply_adds": f"{totals.fewer_multiply_adds:.2f}",
        "tolerance": f"{max(errors):.4g}" if errors else "",
        "rank": f"{max(ranks)}" if ranks else "",
        "drop": _dropped(report),
    }
    return tuple(
        Answer(name, _asked(name, value), achieved[name])
        for name, value in budget.items()
        if achieved.get(name)
    )


def _is_chosen(weight: WeightReport, effective: Json) -> bool:
    """Whether the budget chose a weight's ranks or store, so that its rule fixed neither."""
    rules = effective.get("rules", ())
    rule: Json = next((rule for rule in rules if selects(rule["weights"], weight)), {})
    if isinstance(rule.get("ranks"), Sequence):
        return False
    store = rule.get("store") or effective.get("store", AUTO)
    return not is_whole(rule.get("format")) or store == AUTO


def _dropped(report: BaseReport) -> str:
    """The drop of the counting metric, in its own unit and as a percentage."""
    if not isinstance(report, Report) or not report.metrics:
        return ""
    counting = next(iter(report.metrics.values()))
    drop, before = counting["drop"], abs(counting["before"])
    return f"{drop:.4g}" + (f" ({100 * drop / before:.2f}%)" if before else "")


def _asked(name: str, value: float | str) -> str:
    if isinstance(value, str):
        return value
    if name in ("size", "flash"):
        return f"{value:,} bytes"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"
