"""Makes reports from plans: `plan_report` before a compression, `build_report` after it.

The latter also takes what was measured on each stored weight.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.metadata import version
from math import nan
from typing import TYPE_CHECKING, Any

from ttcompress.model.report import KeptReport, Measured, PlanReport, Report, WeightReport
from ttcompress.planning.plan import Plan, PlannedWeight, dense_multiply_adds
from ttcompress.recipe import Recipe, effective

if TYPE_CHECKING:
    from ttcompress.checkpoint import Checkpoint  # torch


def plan_report(source: Checkpoint, recipe: Recipe, plan: Plan) -> PlanReport:
    """The report that `ttcompress plan` shows."""
    weights = tuple(
        WeightReport(
            **_facts(planned),
            relative_error=nan if planned.expected_error is None else planned.expected_error,
            tried=tuple(one.as_json() for one in planned.tried),
        )
        for planned in plan.changed
    )
    shared = _shared(source, recipe, plan)
    return PlanReport(**shared, weights=weights, from_spectra=plan.from_spectra)


def build_report(
    source: Checkpoint,
    recipe: Recipe,
    plan: Plan,
    measured: Sequence[Measured],
    notes: Iterable[str] = (),
) -> Report:
    """The report of a finished compression.

    Args:
        source: what was compressed.
        recipe: what the plan was made by.
        plan: what was carried out.
        measured: one entry for each changed weight, in the plan's order.
        notes: for the user, after those of the plan and of the source.
    """
    weights = tuple(
        WeightReport(**_facts(planned), **vars(found.errors), spectrum=found.spectrum)
        for planned, found in zip(plan.changed, measured, strict=True)
    )
    return Report(**_shared(source, recipe, plan, notes), weights=weights)


def _shared(
    source: Checkpoint, recipe: Recipe, plan: Plan, notes: Iterable[str] = ()
) -> dict[str, Any]:
    """What both reports say of the whole model; weights come first in `kept`, with the reason."""
    weights = [planned for planned in plan.weights if planned.layout is None]
    return {
        "ttcompress": version("ttcompress"),
        "source": {"sha256": source.sha256, "bytes": source.bytes},
        "recipe": {"text": recipe.text, "effective": effective(recipe)},
        "totals": {"weights": plan.weights_totals, "model": plan.model_totals},
        "kept": (
            *(KeptReport(p.weight.name, p.weight.params, p.weight.bytes, p.why) for p in weights),
            *(KeptReport(one.name, one.params, one.bytes, one.why) for one in plan.others),
        ),
        "left_out": source.left_out,
        "notes": (*plan.notes, *source.notes, *notes),
        "flash": plan.flash,
    }


def _facts(planned: PlannedWeight) -> dict[str, Any]:
    """The fields of a weight that the plan knows and the report repeats."""
    weight = planned.weight
    assert planned.layout is not None and planned.store is not None  # it is not kept
    return {
        "name": weight.name,
        "names": weight.names,
        "role": weight.role,
        **planned.layout.as_json(),
        "ranks": planned.ranks,
        "store": planned.store.name,
        "params_before": weight.params,
        "params_after": planned.params,
        "bytes_before": weight.bytes,
        "bytes_after": planned.bytes,
        "multiply_adds_before": dense_multiply_adds(weight),
        "multiply_adds_after": planned.multiply_adds,
        "notes": planned.notes,
        "in_budget": planned.in_budget,
    }
