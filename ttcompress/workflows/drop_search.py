"""Searches for the smallest model whose metric drops by no more than the budget allows.

The search bisects the factor, since the drop grows with it as a rule. Every trial is measured on
the task and kept in a file, so that an interrupted search continues where it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ttcompress.artifact import CompressedModel
from ttcompress.errors import PlanError, RecipeError
from ttcompress.model.report import RecipeUsed
from ttcompress.recipe import Drop, effective
from ttcompress.system.files import written_whole
from ttcompress.system.json import read_json
from ttcompress.tasks.evaluation import measure_metrics
from ttcompress.tasks.protocol import Task
from ttcompress.training.finetune import TRIAL, Conditions
from ttcompress.workflows.job import Job
from ttcompress.workflows.keys import result_key

LEAST, MOST = 1.25, 128.0
"""The factor where the search begins without one in the budget, and where doubling stops."""

PRECISION = 1.02
"""The ratio between the lowest factor known to lose too much and the one found, at the end."""

Build = Callable[[Job], CompressedModel]


def find_within_drop(job: Job, build: Build, trials: Path | None = None) -> CompressedModel:
    """Find the largest factor at which the counting metric drops by no more than allowed.

    A `factor` in the budget is where the search begins; its other keys hold in every trial.

    Args:
        job: one whose budget has a `drop`.
        build: makes the model of a job.
        trials: the file that keeps the measurements, until the caller removes it.

    Raises:
        RecipeError: there is no task.
        PlanError: even the smallest factor loses more, or is out of reach itself.
    """
    allowed = job.recipe.budget.drop
    if job.task is None or allowed is None:
        raise RecipeError(
            "budget.drop: a task is needed, which measures what is lost. "
            "Add --task, or a task block to the recipe."
        )
    search = _Search(job, build, job.task, allowed, trials)
    low = job.recipe.budget.factor or LEAST
    lost = search.lost(low)
    if lost is None:
        return search.result(low)  # raises: says which key of the budget is out of reach, and why
    if not search.is_within(low):
        raise PlanError(
            f"budget.drop: {allowed.written} is out of reach: factor {low:g}, the smallest tried, "
            f"gives {search.describe(lost)}. Allow a larger drop{search.unit}, or fine-tune: "
            "--finetune."
        )
    return search.result(_largest(search.is_within, low))


def _largest(is_within: Callable[[float], bool], low: float) -> float:
    """The largest factor that passes, starting at one that does: doubling, then bisection."""
    while low < MOST and is_within(2 * low):
        low = 2 * low
    high = 2 * low
    while high / low > PRECISION:
        middle = (low * high) ** 0.5
        if is_within(middle):
            low = middle
        else:
            high = middle
    return low


class _Search:
    """The trials of one search: the metric by factor, or None if no plan reaches that factor."""

    def __init__(
        self, job: Job, build: Build, task: Task, allowed: Drop, path: Path | None
    ) -> None:
        self.job, self.build, self.task, self.allowed, self.path = job, build, task, allowed, path
        self.counting = task.metrics[0]
        self.key = result_key(job.checkpoint.sha256, job.recipe, Path.cwd())
        self.known = _read(path, self.key)
        self.model: tuple[float, CompressedModel] | None = None
        if "before" not in self.known:
            self._keep("before", measure_metrics(task, job.model)[self.counting.name])
        self.before = float(self.known["before"] or 0.0)

    def is_within(self, factor: float) -> bool:
        """Whether a factor can be reached, and loses no more than allowed."""
        lost = self.lost(factor)
        return lost is not None and lost <= self.allowed.most(self.before)

    def lost(self, factor: float) -> float | None:
        """The drop at a factor, in the metric's unit; None if the factor is out of reach."""
        name = f"{factor:.6g}"
        if name not in self.known:
            self.job.progress(
                "search", len(self.known) - 1, len(self.known), f"factor {factor:.3g}"
            )
            try:
                model = self._built(factor)
            except PlanError:
                self._keep(name, None)
            else:
                self._keep(name, measure_metrics(self.task, model)[self.counting.name])
                self._forget()
        after = self.known[name]
        if after is None:
            return None
        return (self.before - after) * (1 if self.counting.higher_is_better else -1)

    @property
    def unit(self) -> str:
        """What to say about the unit of the drop, where a percentage means nothing."""
        nothing = self.allowed.relative and not self.before
        return f" in the unit of {self.counting.name}, since it is 0 before" if nothing else ""

    def describe(self, lost: float) -> str:
        """Say in words what was lost, in the unit of the drop that is allowed."""
        if self.allowed.relative and self.before:
            return f"a drop of {100 * lost / abs(self.before):.3g} %"
        return f"a drop of {lost:.4g}"

    def result(self, factor: float) -> CompressedModel:
        """The model of a factor, with a note about the search in its report."""
        model = self._built(factor)
        tried = len(self.known) - 1
        note = f"drop {self.allowed.written}: factor {factor:.4g} found in {tried} trials"
        recipe = self.job.recipe
        asked: RecipeUsed = {"text": recipe.text, "effective": effective(recipe)}
        report = replace(model.report, recipe=asked, notes=(*model.report.notes, note))
        return replace(model, report=report)

    def _built(self, factor: float) -> CompressedModel:
        if self.model is None or self.model[0] != factor:
            budget = replace(self.job.recipe.budget, drop=None, factor=factor)
            recipe = replace(self.job.recipe, budget=budget)
            job = replace(self.job, recipe=recipe, conditions=self._conditions(factor))
            self.model = (factor, self.build(job))
        return self.model[1]

    def _conditions(self, factor: float) -> Conditions:
        """Those of one trial, whose training is saved by itself."""
        return self.job.conditions.named(f"{TRIAL}{factor:.6g}")

    def _forget(self) -> None:
        """Remove the saved trainings of all trials but the one that would be the result."""
        factors = [float(name) for name in self.known if name != "before"]
        best = max(filter(self.is_within, factors), default=None)
        self.job.conditions.forget(None if best is None else self._conditions(best).resume)

    def _keep(self, name: str, value: float | None) -> None:
        self.known[name] = value
        if self.path is not None:
            text = json.dumps({"key": self.key, "trials": self.known}, indent=1)
            with written_whole(self.path, overwrite=True) as file:
                file.write(text.encode())


def _read(path: Path | None, key: str) -> dict[str, float | None]:
    """The trials of an interrupted search, if it was the same search."""
    if path is None or not path.is_file():
        return {}
    try:
        document: Any = read_json(path.read_bytes())
    except (OSError, ValueError):
        return {}
    same = isinstance(document, dict) and document.get("key") == key
    trials = document.get("trials") if same else None
    if not isinstance(trials, dict) or not all(map(_is_figure, trials.values())):
        return {}
    return dict(trials)


def _is_figure(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))
