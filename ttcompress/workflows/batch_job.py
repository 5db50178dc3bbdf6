"""One job of a batch: a model under a recipe, its key, the work done for it, and its outcome.

The parent process imports this module too, so torch is imported only when the work runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import chdir
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ttcompress.jobs.job import QueuedJob, Result
from ttcompress.jobs.records import beside
from ttcompress.model.report import Json
from ttcompress.recipe import Recipe
from ttcompress.results.outcome import Outcome
from ttcompress.system.memory import within_memory
from ttcompress.system.progress import Progress
from ttcompress.system.shards import shard_names
from ttcompress.workflows.keys import readable_digest, result_key


@dataclass(frozen=True)
class BatchJob:
    """One model under one recipe, and the file its artifact goes to.

    Relative paths in the recipe start in `folder`. Every path here is absolute; no two jobs share
    an `output`.
    """

    model: Path
    recipe: Recipe
    output: Path
    folder: Path
    model_name: str
    recipe_name: str

    @property
    def name(self) -> str:
        """The job for people: `charlm under small`."""
        return f"{self.model_name} under {self.recipe_name}"


def queue_jobs(
    jobs: Sequence[BatchJob], mixed_precision: str = "no"
) -> tuple[QueuedJob[BatchJob], ...]:
    """Give each job its key, see `result_key`; each file is read once."""
    digest = cache(readable_digest)
    queue = []
    for job in jobs:
        model = [digest(path) for path in _model_files(job.model)]
        key = result_key(model, job.recipe, job.folder, mixed_precision, digest)
        queue.append(QueuedJob(job.name, key, job.output, job))
    return tuple(queue)


def _model_files(path: Path) -> Iterator[Path]:
    """A model's file, and its shards if the file is an index of them."""
    yield path
    if path.is_file():  # a pipe may never end
        yield from (path.parent / name for name in shard_names(path))


@dataclass(frozen=True)
class Compression:
    """The work of a batch: compress a model, fine-tune it in `mixed_precision`, and save it."""

    mixed_precision: str = "no"

    def prepare(self) -> None:
        """Import torch and everything needed to compress."""
        import ttcompress.workflows.compress  # noqa: F401  heavy

    def run(self, queued: QueuedJob[BatchJob], threads: int, progress: Progress) -> Json:
        """Write the artifact of a job.

        Returns:
            Its outcome as JSON.
        """
        import torch  # heavy

        from ttcompress.training.finetune import Conditions  # heavy
        from ttcompress.workflows.compress import compress  # heavy

        job = queued.payload
        torch.set_num_threads(threads)
        conditions = Conditions(
            precision=self.mixed_precision,
            # The key is in the name, so saved state always fits.
            resume=beside(job.output, f".{queued.key[:16]}.resume"),
            watch=lambda report: progress("finetune", report.step, report.steps),
            keep=lambda made: made.save(job.output, overwrite=True),
        )
        with within_memory(str(job.model)), chdir(job.folder):
            trials = beside(job.output, ".trials.json")
            model = compress(
                job.model, job.recipe, conditions=conditions, trials=trials, progress=progress
            )
        report = model.report
        return Outcome(
            job.output.name,
            job.model_name,
            job.recipe_name,
            bytes_before=report.comparable_bytes,
            bytes_after=job.output.stat().st_size,
            factor=report.totals["weights"].compression_factor,
            metrics=report.metrics,
            limits=report.limits,
        ).as_json()

    def check(self, facts: Json) -> Outcome:
        """Read the outcome from a record.

        Raises:
            ValueError: the record is damaged.
        """
        return Outcome.from_json(facts)


def outcome_of(job: BatchJob, result: Result) -> Outcome:
    """The outcome of a job from its result in the queue."""
    names = {"file": job.output.name, "model": job.model_name, "recipe": job.recipe_name}
    return Outcome.from_json(names | result.as_json())
