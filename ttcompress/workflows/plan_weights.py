"""Decides what is done to every weight, before anything is decomposed: `plan_weights`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import inf

from ttcompress.calibration.moments import Calibration
from ttcompress.errors import DecompositionError
from ttcompress.planning.menus import Unfit, too_coarse
from ttcompress.planning.plan import Plan
from ttcompress.planning.planner import cuts_for, make_plan
from ttcompress.workflows.job import Job

WORST_ROW = 0.5
"""The most that any row of a weight stored dense may lose, relative to its norm."""


def plan_weights(job: Job, overhead: int = 0, stretch: float = 1.0) -> Plan:
    """Decide what is done to every weight.

    `overhead` is the number of bytes of the output file outside tensors, for a budget of the whole
    file; `stretch` corrects the estimates of what is coded, see `make_plan`.

    Raises:
        PlanError: the recipe does not fit the model, or the budget is out of reach.
        DecompositionError: a weight holds NaN or infinity.
    """
    weights = {weight.name: weight for weight in job.checkpoint.weights}
    cuts = {
        weights[name]: cuts for name, cuts in cuts_for(job.recipe, job.checkpoint.weights).items()
    }
    spectra = job.analysis.spectra(cuts, job.weightings, job.progress)
    unfit: dict[str, Unfit] = {}
    while True:
        model = job.checkpoint
        plan = make_plan(
            job.recipe,
            model.weights,
            model.others,
            spectra,
            overhead,
            unfit,
            job.costs,
            stretch,
            job.beside_flash,
        )
        found = dict(_find_unfit(job, plan, unfit))
        if not found:
            notes = (*plan.notes, *job.notes)
            plan = replace(plan, notes=notes, model_flash=job.model_flash)
            calibration = job.calibration
            return plan if calibration is None else _note_calibration(plan, calibration)
        unfit |= found


def _find_unfit(job: Job, plan: Plan, known: Mapping[str, Unfit]) -> Iterator[tuple[str, Unfit]]:
    """The dense weights with a row that its store would lose, and the stores too coarse for it.

    A group of values shares one scale: beside a much larger row, a small one is rounded away, and
    the error of the whole weight does not show it. Entropy-coded recurrent weights may lose rows,
    as trains do: where an error costs more, steps are finer.
    """
    dense = [
        p
        for p in plan.changed
        if p.layout is not None
        and not p.layout.decomposes
        and not (p.estimated is not None and p.weight.role == "recurrent")
    ]
    for done, planned in enumerate(dense):
        weight, layout, store = planned.weight, planned.layout, planned.store
        assert layout is not None and store is not None  # it is not kept
        job.progress("round", done, len(dense), weight.name)
        weighting = job.weightings.get(weight.name)
        try:
            worst = job.analysis.dense_errors(weight, layout, store, weighting).worst_row_error
        except DecompositionError:
            if weight.name not in known:
                raise
            worst = inf  # out of range in a store that nobody asked for
        if worst > WORST_ROW and store.name not in known.get(weight.name, {}):
            yield weight.name, too_coarse(store, worst)
    if dense:
        job.progress("round", len(dense), len(dense))


def _note_calibration(plan: Plan, calibration: Calibration) -> Plan:
    """Add to a plan what the user should know of the weights with few inputs or none."""
    depending = [p for p in plan.changed if p.in_budget or (p.store and p.store.coarse)]
    notes = {p.weight.name: calibration.notes.get(p.weight.name) for p in depending}
    noted = [name for name, note in notes.items() if note]
    if not noted:
        return plan
    weights = tuple(
        replace(p, notes=(*p.notes, note)) if (note := notes.get(p.weight.name)) else p
        for p in plan.weights
    )
    least = min(calibration.inputs[name] for name in noted)
    line = (
        f"Calibration had too few inputs for {len(noted)} of {len(notes)} weights ({least:,} for "
        f"{min(noted, key=lambda name: calibration.inputs[name])}), so they lean on estimates made "
        "from the model alone. The notes of each weight say how much. Calibrate with more data."
    )
    return replace(plan, weights=weights, notes=(*plan.notes, line))
