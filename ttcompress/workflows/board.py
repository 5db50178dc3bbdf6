"""What running jobs tell the parent, through files that both can see: their starts and their stage.

A worker that is killed says nothing any more, but what it wrote before stays.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ttcompress.system.progress import Progress
from ttcompress.workflows.batch_job import Job

PAUSE = 0.5
"""Seconds between two lines of a job about its stage."""


@dataclass(frozen=True)
class Board:
    """A folder of one run; workers write, the parent reads."""

    folder: Path

    def start(self, job: Job) -> int:
        """Note that a job starts, and say how often it has."""
        with self._path(job, "starts").open("ab") as file:
            file.write(b".")
            return file.tell()

    def starts(self, job: Job) -> int:
        """How often a job was started."""
        path = self._path(job, "starts")
        return path.stat().st_size if path.exists() else 0

    def teller(self, job: Job) -> Progress:
        """What a job tells its progress to."""
        path, last = self._path(job, "stage"), float("-inf")

        def tell(stage: str, done: int, total: int, detail: str = "") -> None:
            nonlocal last
            if time.monotonic() - last >= PAUSE:
                with suppress(OSError):  # a full disk: the job's own files decide what it costs
                    path.write_text(json.dumps([stage, done, total, detail]), encoding="utf-8")
                last = time.monotonic()

        return tell

    def stages(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, str, int, int]]:
        """The stage of every job that has told one, with what is done of it and its total."""
        for job in jobs:
            try:
                text = self._path(job, "stage").read_text(encoding="utf-8")
                stage, done, total, _ = json.loads(text)
            except (OSError, ValueError):  # not there yet, or just being written
                continue
            yield job, stage, done, total

    def clear(self, job: Job) -> None:
        """Take a job's stage off, when it is over."""
        self._path(job, "stage").unlink(missing_ok=True)

    def _path(self, job: Job, suffix: str) -> Path:
        ticket = hashlib.sha256(str(job.output).encode()).hexdigest()[:16]
        return self.folder / f"{ticket}.{suffix}"
