"""Plans the compression of a checkpoint without writing anything: `plan`."""

from __future__ import annotations

from ttcompress.checkpoint import Checkpoint, ModelSource
from ttcompress.errors import PlanError
from ttcompress.planning.plan import Plan
from ttcompress.recipe import AnyRecipe, as_recipe
from ttcompress.system.progress import Progress, silent
from ttcompress.workflows.budget import header_bytes, settle_flash
from ttcompress.workflows.job import Data, prepare
from ttcompress.workflows.plan_weights import plan_weights


def plan(
    source: ModelSource | Checkpoint,
    recipe: AnyRecipe = None,
    *,
    data: Data | None = None,
    key: str | None = None,
    progress: Progress = silent,
) -> tuple[Checkpoint, Plan]:
    """Plan what `compress` would do with the same arguments, with exact sizes.

    Under a budget of the whole file the weights are decomposed once, to measure its header, and
    under one of flash, to measure what is beside them. Under a
    `tolerance` sizes are estimates: if the measured rounding error exceeds it, `compress` plans
    again, aiming lower.
    """
    chosen = as_recipe(recipe)
    if chosen.budget.drop is not None:
        raise PlanError(
            f"budget.drop: whether {chosen.budget.drop.written} is kept shows only when a "
            "compressed model is measured. Use decompose, or plan for a factor."
        )
    job = prepare(source, chosen, data=data, key=key, progress=progress, measured=False)
    job = settle_flash(job)
    overhead = 0 if job.largest_file is None else header_bytes(job)
    return job.checkpoint, plan_weights(job, overhead)
