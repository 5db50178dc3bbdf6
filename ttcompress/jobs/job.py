"""What the engine knows of a job, of the work that is done for it, and of what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from ttcompress.system.progress import Progress

Json = dict[str, Any]
Payload = TypeVar("Payload")


@dataclass(frozen=True, eq=False)
class QueuedJob(Generic[Payload]):
    """A job in the queue. Only the work looks at the payload.

    Attributes:
        name: as people call it; its progress is told under this name.
        key: a hash of all that its result depends on. A job that was done under it is not rerun.
        output: the file that it writes, an absolute path; no two jobs have the same.
        payload: what to do; it must be picklable.
    """

    name: str
    key: str
    output: Path
    payload: Payload


class Work(Protocol[Payload]):
    """What is done for each job. It is sent to worker processes, so it must be picklable."""

    def prepare(self) -> None:
        """Load what takes time, once in each worker process and not counted as a job's time."""

    def run(self, job: QueuedJob[Payload], threads: int, progress: Progress) -> Json:
        """Write the job's output with so many threads.

        Returns:
            What is to be remembered of it, as plain values.

        Raises:
            Exception: of any kind; it becomes the error in the job's result.
        """

    def check(self, facts: Json) -> object:
        """Hold what was remembered, in a file that may be damaged, against what `run` returns.

        Raises:
            ValueError: they differ; the job runs again.
        """


@dataclass(frozen=True)
class Result:
    """What became of a job.

    Attributes:
        facts: what the work returned; nothing where there is an error.
        seconds: how long the work took the last time.
        attempts: how often the job was started.
        cached: whether it was done before.
        error: why nothing was written, or "".
        kind: the class of that error.
    """

    facts: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    attempts: int = 1
    cached: bool = False
    error: str = ""
    kind: str = ""

    def as_json(self) -> Json:
        """The facts, and all that the engine adds to them."""
        own = ("seconds", "attempts", "cached", "error", "kind")
        return {**self.facts, **{name: getattr(self, name) for name in own}}
