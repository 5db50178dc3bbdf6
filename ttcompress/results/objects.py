"""Checks the objects that a report holds as they were written: `check_objects`.

Each class names what readers take from an object. All else in it is only shown, so that files of
later versions, which may say more, stay readable.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from typing_extensions import TypedDict

from ttcompress.model.report import Report
from ttcompress.recipe.rules import check_selector

if TYPE_CHECKING:
    from pydantic import TypeAdapter


class Task(TypedDict, total=False):
    """The task of a recipe."""

    name: str


class Selector(TypedDict):
    """Which weights a rule is for."""

    weights: str


class Rule(Selector, total=False):
    """A rule of a recipe."""

    format: str
    store: str


class Budget(TypedDict, total=False):
    """The key of a budget that is calculated with."""

    factor: float


class Effective(TypedDict, total=False):
    """The recipe with the values that applied."""

    budget: Budget
    calibration: dict[str, Any]
    key: str
    rules: list[Rule]
    store: str
    target: str
    task: Task


class Training(TypedDict):
    """What was trained after decomposition."""

    task: str
    steps: int
    settings: dict[str, Any]


class Calibration(TypedDict, total=False):
    """What weights were fitted to."""

    biases: list[str]


class Control(TypedDict):
    """A metric of the original, trained for as long."""

    control: float


class Objects(TypedDict):
    """All of them; times are printed, but no file has any."""

    effective: Effective
    finetune: Training | None
    calibration: Calibration | None
    control: dict[str, Control] | None
    bench: None


def check_objects(report: Report) -> None:
    """Check that what is read of these objects is there and has its type.

    Raises:
        ValueError: it is not so.
    """
    effective = report.recipe["effective"]
    kept = {key: getattr(report, key) for key in ("finetune", "calibration", "control", "bench")}
    _objects().validate_python({"effective": effective, **kept}, strict=True)
    if not all(isinstance(one, int | float | str) for one in effective.get("budget", {}).values()):
        raise ValueError("report.recipe: a budget must be of numbers or text")
    for rule in effective.get("rules", ()):
        check_selector(rule["weights"])
    if report.control is not None and (absent := (report.metrics or {}).keys() - report.control):
        raise ValueError(f"report.control: missing {', '.join(sorted(absent))}")


@cache
def _objects() -> TypeAdapter[Objects]:
    from pydantic import TypeAdapter  # heavy, and needed only where a file is read

    return TypeAdapter(Objects)
