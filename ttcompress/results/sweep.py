"""What `sweep` returns: every point, and which are on the front of size, quality and speed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from math import inf, isnan
from pathlib import Path

from ttcompress.errors import PlanError, RecipeError
from ttcompress.model.report import Json
from ttcompress.recipe import Recipe
from ttcompress.results.batch import BatchResult
from ttcompress.results.outcome import Outcome
from ttcompress.system.json import plain

OUT_OF_REACH = PlanError.__name__
"""The kind of an outcome that only says that the model has no such point."""


@dataclass(frozen=True)
class Figures:
    """What a model costs and how good it is.

    `bytes` is for its tensors and `multiply_adds` for a time step, both of the whole model;
    `metric` is the task's counting one, None if nothing was measured; `largest_error` is the
    highest relative error of a weight.
    """

    bytes: int
    multiply_adds: int
    largest_error: float
    metric: float | None = None


@dataclass(frozen=True)
class Point:
    """One format at one factor: its recipe, its outcome, and its figures unless it failed.

    `format` is one of `ttcompress.workflows.methods.METHODS`; `outcome.recipe` is the point's
    name, and `path` its artifact, which those of codec do not have.
    """

    format: str
    factor: float
    recipe: Recipe
    path: Path
    outcome: Outcome
    figures: Figures | None

    @property
    def name(self) -> str:
        """Its name in the table: `mps@16`."""
        return self.outcome.recipe


@dataclass(frozen=True)
class Sweep:
    """Every point in the order requested, and the dense model to compare them with.

    `metric` names the task's counting metric; without a task it is None, and points are judged by
    their largest error.
    """

    model: str
    points: tuple[Point, ...]
    dense: Figures
    metric: str | None
    higher_is_better: bool
    seconds: float

    @cached_property
    def front(self) -> tuple[Point, ...]:
        """The points that no other point is ahead of, the smallest first."""
        found = [p for p in self.points if p.figures is not None and not self._ahead(p)]
        return tuple(sorted(found, key=lambda point: self.costs(point.figures)))

    def ahead(self, point: Point) -> Point | None:
        """A point of the front that is as good in everything and better in something, if any."""
        return next((one for one in self._ahead(point) if one in self.front), None)

    def best_of_format(self, point: Point) -> bool:
        """Whether no point of its format is as small and as good, and better in one of the two."""
        here = self.costs(point.figures)[:2]
        rivals = (self.costs(one.figures)[:2] for one in self.points if one.format == point.format)
        return not any(_dominates(rival, here) for rival in rivals)

    def worth(self, figures: Figures) -> float:
        """The quality: the metric if there is one, otherwise the largest error."""
        return figures.largest_error if self.metric is None else figures.metric or 0.0

    def costs(self, figures: Figures | None) -> tuple[float, ...]:
        """Bytes, quality and multiply-adds, signed so that lower is better in each."""
        if figures is None:
            return (inf, inf, inf)
        worth = self.worth(figures)
        worth = -worth if self.metric is not None and self.higher_is_better else worth
        return (figures.bytes, inf if isnan(worth) else worth, figures.multiply_adds)

    def point(self, name: str) -> Point:
        """Find a point by its name.

        Raises:
            RecipeError: there is no such point.
            PlanError: the point is out of reach, or its job failed.
        """
        check_name(name, [point.name for point in self.points])
        point = next(point for point in self.points if point.name == name)
        if point.figures is None:
            raise PlanError(f"{name}: {point.outcome.error}")
        return point

    @property
    def exit_code(self) -> int:
        """As for a batch: 5 if a point failed, 4 if a limit is broken; out of reach is neither."""
        outcomes = [p.outcome for p in self.points if p.outcome.kind != OUT_OF_REACH]
        return BatchResult(self.model, tuple(outcomes), self.seconds).exit_code

    def as_json(self) -> Json:
        """Plain values; each point tells whether it is on the front, or which is ahead of it."""
        return {
            "ttcompress": version("ttcompress"),
            "model": self.model,
            "metric": self.metric,
            "higher_is_better": self.higher_is_better,
            "seconds": self.seconds,
            "exit_code": self.exit_code,
            "dense": plain(self.dense),
            "front": [point.name for point in self.front],
            "points": [
                {
                    "name": point.name,
                    "format": point.format,
                    "asked": point.factor,
                    "figures": plain(point.figures),
                    "front": point in self.front,
                    "ahead": ahead.name if (ahead := self.ahead(point)) else None,
                    "outcome": point.outcome.as_json(),
                }
                for point in self.points
            ],
        }

    def _ahead(self, point: Point) -> list[Point]:
        if point.figures is None:
            return []
        here = self.costs(point.figures)
        return [one for one in self.points if _dominates(self.costs(one.figures), here)]


def check_name(name: str, known: Sequence[str]) -> None:
    """Refuse the name of a point that the sweep does not have.

    Raises:
        RecipeError: the name is not in `known`.
    """
    if name not in known:
        raise RecipeError(
            f"--pick: the sweep has no point {name!r}. Its points are {', '.join(known)}."
        )


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Whether one is as good in everything, and better in something.

    >>> _dominates((1, 2, 3), (1, 2, 4)), _dominates((1, 2, 3), (1, 2, 3))
    (True, False)
    """
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))
