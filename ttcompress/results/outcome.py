"""The outcome of one job of a batch or sweep: sizes, metrics and limits, or why it failed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ttcompress.model.report import Change, Json, Verdict
from ttcompress.system.json import plain, validate

Status = Literal["done", "limit broken", "failed"]


@dataclass(frozen=True)
class Outcome:
    """The outcome of one job.

    `file` is the artifact's name, `bytes_before` and `bytes_after` are sizes of files, the former
    without what was left out (other models, optimizer state); `factor` is the compression factor
    of the decomposed weights, `metrics` and `limits` are the report's.
    `attempts` counts starts, and `seconds` is the duration of the last. If `error` is set, nothing
    was written, and the numbers are None.
    """

    file: str
    model: str
    recipe: str
    seconds: float = 0.0
    attempts: int = 1
    cached: bool = False
    bytes_before: int | None = None
    bytes_after: int | None = None
    factor: float | None = None
    metrics: Mapping[str, Change] | None = None
    limits: tuple[Verdict, ...] = ()
    error: str = ""
    kind: str = ""

    @property
    def status(self) -> Status:
        """Whether the job failed, and if not, whether all limits were kept."""
        if self.error:
            return "failed"
        return "done" if all(limit["ok"] for limit in self.limits) else "limit broken"

    @property
    def name(self) -> str:
        """The job for people: `charlm under small`."""
        return f"{self.model} under {self.recipe}"

    @property
    def counting(self) -> tuple[str, Change] | None:
        """Name and values of the task's counting metric; None if nothing was measured."""
        return next(iter(self.metrics.items())) if self.metrics else None

    def as_json(self) -> Json:
        """Plain values, the status among them."""
        return {**plain(self), "status": self.status}

    @classmethod
    def from_json(cls, document: Json) -> Outcome:
        """Read back what `as_json` gave.

        Raises:
            ValueError: the document is not an outcome.
        """
        return validate(cls, document)
