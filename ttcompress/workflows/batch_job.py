"""One model under one recipe as a value, and the key that says whether it was done before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ttcompress.model.report import Report
from ttcompress.recipe import Recipe
from ttcompress.system.json import read_json
from ttcompress.workflows.keys import readable_digest, result_key

if TYPE_CHECKING:
    pass
from ttcompress.results.outcome import Outcome


@dataclass(frozen=True)
class Job:
    """One model under one recipe, and the file its artifact goes to.

    `folder` is where relative paths in the recipe start. Every path is absolute; no two jobs have
    the same `output`.
    """

    model: Path
    recipe: Recipe
    output: Path
    folder: Path
    model_name: str
    recipe_name: str

    @property
    def name(self) -> str:
        """As people call it: `charlm under small`."""
        return f"{self.model_name} under {self.recipe_name}"


def job_keys(jobs: Sequence[Job], mixed_precision: str = "no") -> dict[Job, str]:
    """A hash of all that a job's result depends on, see `result_key`; each file is read once."""
    digest = cache(readable_digest)
    return {
        job: result_key(
            [digest(path) for path in _model_files(job.model)],
            job.recipe,
            job.folder,
            mixed_precision,
            digest,
        )
        for job in jobs
    }


def _model_files(path: Path) -> Iterator[Path]:
    """A model's file, and the shards where it is an index of them."""
    yield path
    if path.suffix == ".json" and path.is_file():
        try:
            index: Any = read_json(path.read_bytes())
            shards = set(index["weight_map"].values())
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return  # no index: the job says so itself
        yield from (path.parent / str(shard) for shard in sorted(shards, key=str))


def succeeded(job: Job, report: Report, file_bytes: int, seconds: float) -> Outcome:
    """The outcome of a job that wrote its artifact."""
    return replace(
        _blank(job),
        seconds=seconds,
        bytes_before=report.source["bytes"],
        bytes_after=file_bytes,
        factor=report.totals["weights"].compression_factor,
        metrics=report.metrics,
        limits=report.limits,
    )


def failed(job: Job, error: str, kind: str, seconds: float = 0.0) -> Outcome:
    """The outcome of a job that wrote nothing; `kind` is the error's class."""
    return replace(_blank(job), seconds=seconds, error=error, kind=kind)


def _blank(job: Job) -> Outcome:
    return Outcome(job.output.name, job.model_name, job.recipe_name)
