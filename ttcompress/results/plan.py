"""A plan enters, what is told about it leaves: the report's twin from before the work."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib.metadata import version

from ttcompress.model.report import Asked, Json, KeptReport, Provenance, Scope, WeightFacts
from ttcompress.planning.plan import Plan, PlannedWeight
from ttcompress.results.from_plan import kept, scopes, weight_facts


@dataclass(frozen=True)
class PlannedWeightReport(WeightFacts):
    """One weight whose numbers will change.

    `expected_error` is the relative Frobenius error that the spectra let expect, None where the
    plan needed no spectra. `tried` are the trains that were compared, each with its modes.
    """

    expected_error: float | None
    tried: tuple[Json, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class PlanReport:
    """Everything the user is told about a plan; the sizes are those that the report will have.

    Not so under a tolerance above 0: measured rounding can ask for more ranks or bits.
    """

    ttcompress: str
    source: Provenance
    recipe: Asked
    from_spectra: bool
    totals: dict[str, Scope]
    weights: tuple[PlannedWeightReport, ...]
    kept: tuple[KeptReport, ...]
    notes: tuple[str, ...]

    def as_json(self) -> Json:
        """Plain dicts, in the order of the fields."""
        return asdict(self)


def plan_report(
    source: Provenance, recipe: Asked, plan: Plan, notes: tuple[str, ...]
) -> PlanReport:
    """What `ttcompress plan` tells; `notes` are the checkpoint's, after the plan's own."""
    return PlanReport(
        ttcompress=version("ttcompress"),
        source=source,
        recipe=recipe,
        from_spectra=plan.from_spectra,
        totals=scopes(plan),
        weights=tuple(map(_weight, plan.changed)),
        kept=kept(plan),
        notes=(*plan.notes, *notes),
    )


def _weight(planned: PlannedWeight) -> PlannedWeightReport:
    tried = tuple(
        {"format": one.format, "row_modes": one.row_modes, "column_modes": one.column_modes}
        for one in planned.tried
    )
    return PlannedWeightReport(
        **weight_facts(planned), expected_error=planned.expected_error, tried=tried
    )
