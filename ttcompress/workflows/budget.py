"""Plans and decomposes until the result is within its budget.

A plan is made before anything is decomposed. What shows only in the result: the bytes of what is
entropy-coded, the rounding error, for a tolerance, the length of the file's header, for a size, and
what a device holds beside the weights. If one of them misses the budget, the weights are planned
and decomposed again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import exp, inf, log

from ttcompress.artifact import CompressedModel
from ttcompress.errors import PlanError
from ttcompress.planning.plan import Plan
from ttcompress.stores.coded import CODED
from ttcompress.targets.c.build import pack_part
from ttcompress.targets.registry import find_target
from ttcompress.workflows.decompose import Made, execute, make_coded
from ttcompress.workflows.export import choose_parts, choose_rounding
from ttcompress.workflows.job import Job
from ttcompress.workflows.plan_weights import plan_weights

_ROUNDS = 6

_SLACK = 0.01
"""How much less than it may a coded model takes: what issues from values cannot be hit exactly."""


def fit_budget(job: Job, make: Callable[[float], CompressedModel]) -> CompressedModel:
    """Make a model until it is within its budget of bytes, aiming lower where it was not.

    What is coded takes other bytes when its values change, as a refit changes them.

    Args:
        job: what to compress.
        make: makes a model, given the fraction of the allowed bytes to aim at.
    """
    aim = 1.0
    for _ in range(_ROUNDS):
        model = make(aim)
        excess = _excess(job, model)
        if excess <= 1.0:
            return model
        aim *= (1 - _SLACK / 4) / excess
    raise PlanError(f"the budget is out of reach: the model takes {excess:.3f} times its bytes.")


def _excess(job: Job, model: CompressedModel) -> float:
    """The largest ratio of what a model takes to what its budget of bytes allows."""
    budget, weights = job.recipe.budget, model.report.totals["weights"]
    if not any(w.in_budget and w.store == CODED.name for w in model.report.weights):
        return 0.0
    ratios = [0.0]
    if budget.factor is not None:
        ratios.append(weights.bytes_after * budget.factor / weights.bytes_before)
    if (size := job.largest_file) is not None:
        ratios.append((model.file_bytes + _to_be_measured(job)) / size)
    return max(ratios)


def meet_tolerance(job: Job, overhead: int = 0, aim: float = 1.0) -> CompressedModel:
    """Plan and execute until every measured error is within the tolerance, if there is one.

    A plan only estimates the rounding error: if the measured one exceeds the tolerance, the next
    plan aims lower by the same ratio.
    """
    asked = tolerance = job.recipe.budget.tolerance
    worst = 0.0
    for _ in range(_ROUNDS):
        recipe = replace(job.recipe, budget=replace(job.recipe.budget, tolerance=tolerance))
        try:
            model, plan = meet_bytes(replace(job, recipe=recipe), overhead, aim)
        except PlanError:
            if tolerance == asked:
                raise
            break  # the tolerance itself could be planned: do not report the lower aim
        chosen = {p.weight.name for p in plan.weights if p.in_budget and not p.explicit}
        errors = [w.relative_error for w in model.report.weights if w.name in chosen]
        worst = max(errors, default=0.0)
        if not asked or not tolerance or worst <= asked:
            return model
        tolerance *= 0.999 * asked / worst
    raise PlanError(
        f"budget.tolerance: {asked} is out of reach: the stored weights have an error of "
        f"{worst:.4g}. Allow a larger tolerance, or choose a store with more bits."
    )


def meet_bytes(job: Job, overhead: int = 0, aim: float = 1.0) -> tuple[CompressedModel, Plan]:
    """Plan until the coded weights take what the budget allows them, within 1 %, and execute.

    What coded weights take shows only when they are rounded. A plan estimates it; the next one is
    corrected by what the one before would take. Between one that took too few bytes and one that
    took too many, it is interpolated in logarithms.

    Args:
        job: what to compress.
        overhead: as in `plan_weights`.
        aim: the fraction of the allowed bytes to aim at.
    """
    best, settled, stretch = None, False, aim
    below = above = (0.0, 0.0)  # stretch and what was used, of the nearest on either side
    for _ in range(_ROUNDS):
        plan = plan_weights(job, overhead, stretch)
        made = make_coded(job, plan)
        used = _used_bytes(made, plan)
        same = best is not None and abs(used - best[0]) < _SLACK / 10
        settled = same and above == (0.0, 0.0)  # more do not help: none were ever too many
        if used <= aim and (best is None or used > best[0]):
            best = used, plan, made
        if not made or plan.byte_limit == inf:
            break
        if settled or (1 - _SLACK) * aim <= used <= aim:
            break
        below, above = (below, (stretch, used)) if used > aim else ((stretch, used), above)
        stretch = _stretch_for((1 - _SLACK / 4) * aim, below, above)
    if best is None:
        raise PlanError(
            f"the budget is out of reach: the weights took {used:.3f} times what it allows them. "
            "Allow a few more bytes."
        )
    _, plan, made = best
    if made and not settled and plan.byte_limit < inf:
        plan, made = _spend(job, plan, made, aim)
    return execute(job, plan, made), plan


def _stretch_for(aim: float, below: tuple[float, float], above: tuple[float, float]) -> float:
    """The stretch that should use `aim`, from pairs of a stretch and what it used; 0 is unknown."""
    if min(*below, *above) > 0.0:
        rise = log(above[1] / below[1]) / log(above[0] / below[0])
        return below[0] * exp(log(aim / below[1]) / rise)
    stretch, used = max(below, above)
    return stretch * aim / used


def _spend(job: Job, plan: Plan, made: dict[str, Made], aim: float) -> tuple[Plan, dict[str, Made]]:
    """Make all steps finer together, where no price leads to a plan that uses up its bytes.

    At two prices that hardly differ a weight may be a train or a matrix.
    """
    best, used = (plan, made), _used_bytes(made, plan)
    most = used
    for _ in range(_ROUNDS):
        missing = (1 - _SLACK / 2) * aim - used
        if abs(missing) <= _SLACK / 2 * aim:
            break
        values = sum(p.params for p in plan.changed if p.weight.name in made)
        # A bit of each value in every octave, and less where most of them are rounded to 0.
        plan = plan.finer(2.0 ** (missing * plan.byte_limit * 8 / values))
        made = make_coded(job, plan)
        used = _used_bytes(made, plan)
        if most < used <= aim:
            best, most = (plan, made), used
    return best


def _used_bytes(made: Mapping[str, Made], plan: Plan) -> float:
    """The fraction of the bytes left to them that coded weights will take; 0 without a limit."""
    others = sum(p.bytes for p in plan.changed if p.in_budget and p.weight.name not in made)
    taken = sum(part.about_bytes for one, _ in made.values() for part in one.parts)
    return taken / max(1.0, plan.byte_limit - others)


def meet_size(
    job: Job, size: int, make: Callable[[Job, int], CompressedModel] = meet_tolerance
) -> CompressedModel:
    """Plan and execute until the file is as large as `size` allows.

    The header holds the report, whose length is known only afterwards, so each round plans with
    the length from the round before.

    Args:
        job: what to compress.
        size: bytes of the file.
        make: makes a model, given the bytes of its header.
    """
    reserved = _to_be_measured(job)
    overhead, room = header_bytes(job), size - reserved
    best, least = None, inf
    for _ in range(_ROUNDS):
        try:
            model = make(job, overhead)
        except PlanError:
            if best is None:
                raise
            break  # a longer header does not fit, and there is a model that does
        written = model.file_bytes
        least = min(least, written)
        if written <= room and (best is None or written > best.file_bytes):
            best = model
        header = _beside_tensors(job, model)
        if header == overhead or (best is model and written > 0.995 * room):
            break
        overhead = header
    if best is None:
        raise PlanError(
            f"budget: {size:,} bytes are out of reach: the smallest file found has "
            f"{least:,.0f}, and {reserved:,} more are reserved for the measurements. "
            "Allow a larger file, or decompose more weights."
        )
    return best


def header_bytes(job: Job) -> int:
    """Bytes of the file outside tensors, measured on a model that was planned without them.

    What is added to the report when the model is measured is counted too.

    Raises:
        PlanError: not even the tensors fit the budget.
    """
    return _beside_tensors(job, execute(job, plan_weights(job)))


def _beside_tensors(job: Job, model: CompressedModel) -> int:
    tensors = model.report.totals["model"].bytes_after
    return model.file_bytes - tensors + _to_be_measured(job)


def _to_be_measured(job: Job) -> int:
    """Bytes for what is added to the report after the size is settled: drift, metrics, limits."""
    measured = (500 if job.task else 0) + (300 if job.conditions.control else 0)
    return 300 + 100 * len(job.model.stacks) + measured


def settle_flash(job: Job) -> Job:
    """Find what the model takes in a device's flash beside the weights of a `flash` budget.

    Tables, biases, the head and padding show when a model is written as C, and the table of symbols
    may grow with a rank. So each round plans with what there was beside the weights of the last.

    Returns:
        The job whose plan takes most of the budget.

    Raises:
        PlanError: the budget is out of reach.
        RecipeError: the model cannot be written as C.
    """
    asked = job.recipe.budget.flash
    if asked is None:
        return job
    best, most, flash = job, 0, 0
    for _ in range(_ROUNDS):
        plan = plan_weights(job)
        flash = flash_bytes(execute(job, plan))
        if most < flash <= asked:
            best, most = replace(job, model_flash=flash), flash
        assert plan.flash is not None  # the target is c
        beside = flash - plan.flash.weights
        if beside == job.beside_flash or (1 - _SLACK) * asked <= most:
            break
        job = replace(job, beside_flash=beside)
    if not most:
        raise PlanError(
            f"budget.flash: {asked:,} bytes are out of reach: the plan nearest to them takes "
            f"{flash:,}. Allow a few more bytes."
        )
    return best


def flash_bytes(model: CompressedModel) -> int:
    """Bytes of constants of a model as C, in the arithmetic that it was planned for."""
    target = find_target("c")
    quantize = choose_rounding(target, None, model)
    return sum(pack_part(part, quantize).flash for part in choose_parts(model, target))
