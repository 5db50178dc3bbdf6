"""Types of the queue: a job, the work done for each, and its result."""

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
        name: for people; its progress is reported under this name.
        key: a hash of all that the result depends on. A job done under the same key is not rerun.
        output: absolute path of the file that it writes; no two jobs share one.
        payload: what to do; it must be picklable.
    """

    name: str
    key: str
    output: Path
    payload: Payload


class Work(Protocol[Payload]):
    """The work done for each job. It is sent to worker processes, so it must be picklable."""

    def prepare(self) -> None:
        """Do slow imports, once in each worker process and outside the time of any job."""

    def run(self, job: QueuedJob[Payload], threads: int, progress: Progress) -> Json:
        """Write the job's output, using `threads` threads.

        Returns:
            The facts to record, as plain values.

        Raises:
            Exception: of any kind; it becomes the error in the job's result.
        """

    def check(self, facts: Json) -> object:
        """Check that recorded facts, from a file that may be damaged, are what `run` returns.

        Raises:
            ValueError: they are not; the job runs again.
        """


@dataclass(frozen=True)
class Result:
    """The result of a job.

    Attributes:
        facts: what the work returned; empty if there is an error.
        seconds: duration of the last attempt.
        attempts: how often the job was started.
        cached: whether the result is from an earlier run.
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
        """The facts, with the engine's own fields added."""
        own = ("seconds", "attempts", "cached", "error", "kind")
        return {**self.facts, **{name: getattr(self, name) for name in own}}
