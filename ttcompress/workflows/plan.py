"""Says what compressing a checkpoint would do; nothing is decomposed."""

from __future__ import annotations

from pathlib import Path

from ttcompress.checkpoint import Checkpoint, open_checkpoint
from ttcompress.errors import PlanError
from ttcompress.planning.plan import Plan
from ttcompress.planning.planner import make_plan
from ttcompress.recipe import AnyRecipe, as_recipe
from ttcompress.system.progress import Progress, silent
from ttcompress.workflows.build import Known, header_bytes, spectra_for
from ttcompress.workflows.compress import calibration_of, task_of, weightings_of


def plan(
    source: str | Path,
    recipe: AnyRecipe = None,
    *,
    key: str | None = None,
    progress: Progress = silent,
) -> tuple[Checkpoint, Plan]:
    """What `compress` would do, with exact sizes; nothing is decomposed.

    Under a `size` budget the weights are decomposed once, to measure the file's header. Under a
    `tolerance` sizes are expected: where rounding is then measured above it, `compress` plans
    again, as much lower.
    """
    chosen = as_recipe(recipe)
    if chosen.budget.drop is not None:
        raise PlanError(
            f"budget.drop: {chosen.budget.drop.written} asked, and what is lost is known only when "
            "it is measured. Use decompose, or give the plan a factor."
        )
    checkpoint = open_checkpoint(source, key or chosen.key)
    task = task_of(chosen, checkpoint) if chosen.calibration else None
    weightings = weightings_of(calibration_of(chosen, checkpoint, task, progress))
    spectra = spectra_for(checkpoint, chosen, progress, weightings)
    overhead = 0
    if chosen.budget.size is not None:
        overhead = header_bytes(checkpoint, chosen, Known(spectra, weightings), progress)
    weights, others = checkpoint.weights, checkpoint.others
    return checkpoint, make_plan(chosen, weights, others, spectra, overhead)
