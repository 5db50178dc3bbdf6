"""Judges a finished report by the limits of its recipe."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from ttcompress.errors import RecipeError
from ttcompress.model.report import Report, Verdict

if TYPE_CHECKING:
    from ttcompress.artifact import CompressedModel
    from ttcompress.recipe import Drop, Limits, Recipe
    from ttcompress.tasks.protocol import Task


def judged(model: CompressedModel, limits: Limits | None) -> CompressedModel:
    """Judge a model by limits, and write the verdicts into its report.

    A broken limit is not an error: it is an entry of `report.limits` whose `ok` is False.
    """
    if limits is None:
        return model
    # The verdicts are in the file but not its size, so any size gives the right length.
    size = replace(model, report=judge_report(model.report, limits, 0)).file_bytes
    return replace(model, report=judge_report(model.report, limits, size))


def judge_report(report: Report, limits: Limits, file_bytes: int) -> Report:
    """Add an entry for each limit to a report: its name, the limit, and the value reached."""
    return replace(report, limits=tuple(_verdicts(report, limits, file_bytes)))


def broken_limits(report: Report) -> tuple[Verdict, ...]:
    """The limits that were not kept."""
    return tuple(limit for limit in report.limits if not limit["ok"])


def _verdicts(report: Report, limits: Limits, file_bytes: int) -> Iterator[Verdict]:
    weights = report.totals["weights"]
    if limits.min_factor is not None:
        yield _at_least("min_factor", limits.min_factor, weights.compression_factor)
    if limits.max_size is not None:
        yield verdict("max_size", limits.max_size, file_bytes, file_bytes <= limits.max_size)
    if limits.max_drop is not None:
        yield _drop_verdict(report, limits.max_drop)
    if limits.min_multiply_adds is not None:
        fewer = weights.fewer_multiply_adds
        yield _at_least("min_multiply_adds", limits.min_multiply_adds, fewer)


def check_limits(recipe: Recipe, task: Task | None = None) -> None:
    """Refuse, before the work, a limit that could not be judged after it.

    Args:
        recipe: it may name a task.
        task: one that is built already.

    Raises:
        RecipeError: there is a limit on the drop, but no task that measures it. A training without
            labels measures how far the outputs are from the original's, so that a percentage of
            the original's own error, which is 0, allows nothing.
    """
    limits = recipe.limits
    if not limits or limits.max_drop is None or recipe.task or task:
        return
    if recipe.finetune is None:
        raise _unmeasured(limits.max_drop)
    if limits.max_drop.relative:
        raise RecipeError(
            f"limits.max_drop: {limits.max_drop.written} of the original's error is 0 where it is "
            "compared with itself, without a task. Give a number instead of a percentage, or add "
            "--task."
        )


def _unmeasured(limit: Drop) -> RecipeError:
    return RecipeError(
        f"limits.max_drop: a drop of {limit.written} can only be judged with a task. Add --task."
    )


def _drop_verdict(report: Report, limit: Drop) -> Verdict:
    """The counting metric's drop, in the unit of the limit.

    Raises:
        RecipeError: nothing was measured, so nothing can be judged.
    """
    if not report.metrics:
        raise _unmeasured(limit)
    counting = next(iter(report.metrics.values()))
    drop, before = counting["drop"], abs(counting["before"])
    ok = drop <= limit.most(before)
    if limit.relative and not before:  # a percentage of 0 allows nothing, in any unit
        return verdict("max_drop", limit.most(before), drop, ok)
    return verdict("max_drop", limit.amount, drop / before if limit.relative else drop, ok)


def _at_least(name: str, limit: float, value: float) -> Verdict:
    return verdict(name, limit, value, value >= limit)


def verdict(name: str, limit: float, value: float, ok: bool) -> Verdict:
    """An entry of a report's limits: the limit, the value reached, and whether it was kept."""
    return {"name": name, "limit": limit, "value": value, "ok": ok}
