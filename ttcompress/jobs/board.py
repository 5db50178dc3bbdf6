"""Passes starts and stages from running jobs to the parent, through files that both can see.

A worker that is killed cannot send anything any more, but the files that it wrote stay.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from typing import Any

from ttcompress.errors import OutputError
from ttcompress.jobs.job import QueuedJob
from ttcompress.system.progress import Progress, silent

PAUSE = 0.5
"""Seconds between two reports of a job's stage."""

Jobs = Sequence[QueuedJob[Any]]


@dataclass(frozen=True)
class Board:
    """A folder for one run, which workers write to and the parent reads."""

    folder: Path

    def start(self, output: Path) -> int:
        """Record that the job of an output starts; returns how often it has."""
        with self._path(output, "starts").open("ab") as file:
            file.write(b".")
            return file.tell()

    def starts(self, output: Path) -> int:
        """How often the job of an output was started."""
        path = self._path(output, "starts")
        return path.stat().st_size if path.exists() else 0

    def teller(self, output: Path) -> Progress:
        """The `Progress` of a job, which writes its stage to a file."""
        path, last = self._path(output, "stage"), float("-inf")

        def tell(stage: str, done: int, total: int, detail: str = "") -> None:
            nonlocal last
            if time.monotonic() - last >= PAUSE:
                with suppress(
                    OSError
                ):  # a full disk fails the job only if its own files do not fit
                    path.write_text(json.dumps([stage, done, total, detail]), encoding="utf-8")
                last = time.monotonic()

        return tell

    def stages(self, jobs: Jobs) -> Iterator[tuple[str, str, int, int]]:
        """Name, stage, steps done and total of every job that has reported a stage."""
        for job in jobs:
            try:
                text = self._path(job.output, "stage").read_text(encoding="utf-8")
                stage, done, total, _ = json.loads(text)
            except (OSError, ValueError):  # not there yet, or just being written
                continue
            yield job.name, stage, done, total

    def clear(self, output: Path) -> None:
        """Remove a job's stage once it is over."""
        self._path(output, "stage").unlink(missing_ok=True)

    def _path(self, output: Path, suffix: str) -> Path:
        ticket = hashlib.sha256(str(output).encode()).hexdigest()[:16]
        return self.folder / f"{ticket}.{suffix}"


@contextmanager
def open_board(parent: Path, jobs: Jobs, progress: Progress) -> Iterator[Board]:
    """Open a board below `parent` while the block runs; stages are passed on to `progress`.

    Raises:
        OutputError: its folder cannot be made.
    """
    try:
        # A job that is interrupted may still be writing there.
        made = TemporaryDirectory(prefix="run-", dir=parent, ignore_cleanup_errors=True)
    except OSError as error:
        raise OutputError(
            f"{parent}: cannot be written: {error.strerror}. Choose another `output.folder`."
        ) from error
    over = Event()

    def listen(board: Board) -> None:
        while not over.wait(PAUSE):
            for name, stage, done, total in board.stages(jobs):
                progress(name, done, total, stage)

    with made as folder:
        board = Board(Path(folder))
        thread = Thread(target=listen, args=(board,), daemon=True)
        if progress is not silent:
            thread.start()
        try:
            yield board
        finally:
            over.set()
            if progress is not silent:
                thread.join()
