"""What a worker does with a job: compress, save, record. A job's errors become its outcome.

Alone in this room it needs torch, and imports it in a function: the parent imports this module too.
"""

from __future__ import annotations

import time
import traceback
from contextlib import chdir
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock

from ttcompress.errors import OutputError, TTCompressError
from ttcompress.results.outcome import Outcome
from ttcompress.system.memory import within_memory
from ttcompress.workflows.batch_job import Job, failed, succeeded
from ttcompress.workflows.board import Board
from ttcompress.workflows.records import beside, locked, record, recorded

MOST_STARTS = 3
"""A job whose worker dies is tried twice more."""

_ONE_AT_A_TIME = Lock()  # the working folder and torch's threads belong to the whole process


@dataclass(frozen=True)
class Work:
    """What holds for every job of a run; threads of None are as many as the Dask worker has."""

    board: Board
    threads: int | None
    force: bool
    mixed_precision: str = "no"

    def __call__(self, job: Job, key: str) -> tuple[Path, Outcome]:
        """Run one job in this process, unless another batch has done it meanwhile.

        Returns:
            The job's output, by which the parent knows the job, and what became of it.
        """
        try:
            return job.output, self._outcome(job, key)
        except OSError as error:  # of the board or of the lock: the job's own have their outcome
            fact = f"{beside(job, '').parent}: cannot be written: {error.strerror or error}."
            return job.output, failed(job, f"{fact} {_ROOM}", OutputError.__name__)
        except OutputError as error:
            return job.output, failed(job, str(error), OutputError.__name__)

    def _outcome(self, job: Job, key: str) -> Outcome:
        with _ONE_AT_A_TIME, locked(job):
            if not self.force and (found := recorded(job, key)) is not None:
                return found
            starts = self.board.start(job)
            if starts > MOST_STARTS:
                outcome = replace(failed(job, _DIED, "WorkerDied"), attempts=MOST_STARTS)
            else:
                outcome = replace(self._tried(job, key), attempts=starts)
            if not outcome.error:
                record(job, key, outcome)
            self.board.clear(job)
            return outcome

    def _tried(self, job: Job, key: str) -> Outcome:
        import ttcompress.workflows.compress  # noqa: F401  heavy, and no part of a job's time

        started = time.monotonic()
        try:
            with within_memory(str(job.model)):
                return self._done(job, key, started)
        except TTCompressError as error:
            return failed(job, str(error), type(error).__name__, time.monotonic() - started)
        except (Exception, SystemExit) as error:  # a user's task can raise anything
            trace = "".join(traceback.format_exception(error))
            text = f"{type(error).__name__}: {error}\n{trace}"
            return failed(job, text, type(error).__name__, time.monotonic() - started)

    def _done(self, job: Job, key: str, started: float) -> Outcome:
        import torch  # heavy, see above

        from ttcompress.training.finetune import Conditions  # heavy
        from ttcompress.workflows.compress import compress  # heavy

        torch.set_num_threads(self.threads or _threads_here())
        progress = self.board.teller(job)
        conditions = Conditions(
            precision=self.mixed_precision,
            resume=beside(job, f".{key[:16]}.resume"),  # of the same key: it always fits
            watch=lambda report: progress("finetune", report.step, report.steps),
        )
        with chdir(job.folder):
            trials = beside(job, ".trials.json")
            model = compress(
                job.model, job.recipe, conditions=conditions, trials=trials, progress=progress
            )
            model.save(job.output, overwrite=True)
        size = job.output.stat().st_size
        return succeeded(job, model.report, size, time.monotonic() - started)


_DIED = (
    f"its worker process died {MOST_STARTS} times (killed, or out of memory). "
    "Free memory, or run fewer jobs at once: -j 1."
)


_ROOM = "Free some space, or give another `output.folder`."


def _threads_here() -> int:
    from distributed import get_worker  # an extra, and only on its workers

    threads: int = get_worker().state.nthreads
    return threads
