"""What `batch` returns: the outcome of every job, and the exit code for all of them."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from ttcompress.errors import BROKEN_LIMIT, PARTLY_FAILED
from ttcompress.model.report import Json
from ttcompress.results.outcome import Outcome


@dataclass(frozen=True)
class BatchResult:
    """The outcome of every job, in the order of the manifest; `seconds` is for the whole batch.

    `paths` are where the jobs write their artifacts, in the same order; a failed job has no file.
    """

    manifest: str
    outcomes: tuple[Outcome, ...]
    seconds: float
    paths: tuple[Path, ...] = ()

    @property
    def exit_code(self) -> int:
        """5 if a job failed, 4 if a limit is broken, otherwise 0."""
        found = {outcome.status for outcome in self.outcomes}
        if "failed" in found:
            return PARTLY_FAILED
        return BROKEN_LIMIT if "limit broken" in found else 0

    def as_json(self) -> Json:
        """The document of `--json`, which `--baseline` reads."""
        return {
            "ttcompress": version("ttcompress"),
            "manifest": self.manifest,
            "seconds": self.seconds,
            "exit_code": self.exit_code,
            "jobs": [outcome.as_json() for outcome in self.outcomes],
        }
