"""What `sweep` returns: every point, and which of them are on the front of size and quality."""

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
"""The kind of an outcome that says no more than that the model has no such point."""


@dataclass(frozen=True)
class Figures:
    """What a model costs and what it is worth.

    `bytes` are those of its tensors and `multiply_adds` those of a time step, over the whole model;
    `metric` is the task's counting one, None where nothing was measured; `largest_error` is the
    relative error of the weight that lost most.
    """

    bytes: int
    multiply_adds: int
    largest_error: float
    metric: float | None = None


@dataclass(frozen=True)
class Point:
    """One format at one factor: what was asked, what became of it, and the figures if it is there.

    `format` is one of `ttcompress.workflows.methods.METHODS`; `outcome.recipe` is the point's
    name, and `path` its artifact.
    """

    format: str
    factor: float
    recipe: Recipe
    path: Path
    outcome: Outcome
    figures: Figures | None

    @property
    def name(self) -> str:
        """As the table calls it: `mps@16`."""
        return self.outcome.recipe


@dataclass(frozen=True)
class Sweep:
    """Every point in the order asked, and the dense model beside them.

    `metric` names the task's counting metric; without a task it is None, and the largest error
    stands in for it.
    """

    model: str
    points: tuple[Point, ...]
    dense: Figures
    metric: str | None
    higher_is_better: bool
    seconds: float

    @cached_property
    def front(self) -> tuple[Point, ...]:
        """The points that none is ahead of: the cheapest first."""
        found = [p for p in self.points if p.figures is not None and not self._ahead(p)]
        return tuple(sorted(found, key=lambda point: self.costs(point.figures)))

    def ahead(self, point: Point) -> Point | None:
        """A point of the front that is as good in everything and better in something, if any."""
        return next((one for one in self._ahead(point) if one in self.front), None)

    def worth(self, figures: Figures) -> float:
        """What is set against the bytes: the metric, or else the largest error."""
        return figures.largest_error if self.metric is None else figures.metric or 0.0

    def costs(self, figures: Figures | None) -> tuple[float, ...]:
        """Bytes, metric and multiply-adds, each the better the lower."""
        if figures is None:
            return (inf, inf, inf)
        worth = self.worth(figures)
        worth = -worth if self.metric is not None and self.higher_is_better else worth
        return (figures.bytes, inf if isnan(worth) else worth, figures.multiply_adds)

    def point(self, name: str) -> Point:
        """The point of a name.

        Raises:
            RecipeError: there is none.
            PlanError: there is, and it is out of reach or failed.
        """
        check_name(name, [point.name for point in self.points])
        point = next(point for point in self.points if point.name == name)
        if point.figures is None:
            raise PlanError(f"{name}: {point.outcome.error}")
        return point

    @property
    def exit_code(self) -> int:
        """As of a batch: 5 where a point failed, 4 where a limit broke; out of reach is neither."""
        outcomes = [p.outcome for p in self.points if p.outcome.kind != OUT_OF_REACH]
        return BatchResult(self.model, tuple(outcomes), self.seconds).exit_code

    def as_json(self) -> Json:
        """Plain values; each point says whether it is on the front, or which one is ahead of it."""
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
    """Refuse the name of a point that is not among those known.

    Raises:
        RecipeError: it is not.
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
