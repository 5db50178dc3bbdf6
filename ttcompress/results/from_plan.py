"""From a plan and what was measured to a `Report`."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from ttcompress.model.report import (
    Asked,
    KeptReport,
    Measured,
    Provenance,
    Report,
    Scope,
    WeightReport,
)
from ttcompress.planning.plan import Plan, PlannedWeight, Totals, dense_multiply_adds

NO_WEIGHT = "not a weight"
"""Why a tensor is kept that is none; it is told of together with its like."""


def build_report(
    source: Provenance,
    recipe: Asked,
    plan: Plan,
    measured: Sequence[Measured],
    notes: Sequence[str] = (),
) -> Report:
    """The report of a finished compression: `measured` has one entry for each changed weight."""
    return Report(
        ttcompress=version("ttcompress"),
        source=source,
        recipe=recipe,
        totals=scopes(plan),
        weights=tuple(
            _weight_report(planned, found)
            for planned, found in zip(plan.changed, measured, strict=True)
        ),
        kept=kept(plan),
        notes=(*plan.notes, *notes),
    )


def scopes(plan: Plan) -> dict[str, Scope]:
    """The totals of both scopes, by name."""
    return {"weights": _scope(plan.weights_totals), "model": _scope(plan.model_totals)}


def kept(plan: Plan) -> tuple[KeptReport, ...]:
    """Kept weights with the reason, then every tensor that is no weight."""
    weights = tuple(
        KeptReport(p.weight.name, p.weight.params, p.weight.bytes, p.why)
        for p in plan.weights
        if p.format == "keep"
    )
    others = tuple(
        KeptReport(other.name, other.params, other.bytes, NO_WEIGHT) for other in plan.others
    )
    return weights + others


def _scope(totals: Totals) -> Scope:
    return Scope(
        params_before=totals.params_before,
        params_after=totals.params_after,
        bytes_before=totals.bytes_before,
        bytes_after=totals.bytes_after,
        params_kept=totals.params_kept,
        compression_factor=totals.compression_factor,
        multiply_adds_before=totals.multiply_adds_before,
        multiply_adds_after=totals.multiply_adds_after,
    )


def _weight_report(planned: PlannedWeight, measured: Measured) -> WeightReport:
    return WeightReport(
        **weight_facts(planned),
        relative_error=measured.relative_error,
        gate_errors=measured.gate_errors,
        spectrum=measured.spectrum,
    )


def weight_facts(planned: PlannedWeight) -> dict[str, Any]:
    """The fields that a weight has in a plan and in a report alike."""
    weight, layout = planned.weight, planned.layout
    return {
        "name": weight.name,
        "names": weight.names,
        "role": weight.role,
        "format": planned.format,
        "row_modes": layout.row_modes if layout else (),
        "column_modes": layout.column_modes if layout else (),
        "ranks": planned.ranks,
        "store": planned.store.name if planned.store else weight.dtype,
        "params_before": weight.params,
        "params_after": planned.params,
        "bytes_before": weight.bytes,
        "bytes_after": planned.bytes,
        "multiply_adds_before": dense_multiply_adds(weight),
        "multiply_adds_after": planned.multiply_adds,
        "notes": planned.notes,
    }
