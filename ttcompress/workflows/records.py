"""What is known of jobs done before: a record for each output, in a folder beside it, and a lock.

compressed/charlm.small.safetensors
compressed/.ttcompress-batch/charlm.small.safetensors.json    key, hash of the output, outcome
"""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from filelock import FileLock

from ttcompress.results.outcome import Outcome
from ttcompress.system.files import written_whole
from ttcompress.system.json import read_json
from ttcompress.workflows.batch_job import Job
from ttcompress.workflows.keys import file_digest

FOLDER = ".ttcompress-batch"


def beside(job: Job, suffix: str) -> Path:
    """A file of a job's own in the folder of records."""
    return job.output.parent / FOLDER / f"{job.output.name}{suffix}"


def locked(job: Job) -> AbstractContextManager[object]:
    """Hold a job's output, against other batches in the same folder; gone with the process."""
    return FileLock(beside(job, ".lock"))


def recorded(job: Job, key: str) -> Outcome | None:
    """The outcome of a job that was done under the same key, and whose output is as it was left."""
    try:
        record = read_json(beside(job, ".json").read_bytes())
        if record["key"] != key or record["sha256"] != file_digest(job.output):
            return None
        return replace(Outcome.from_json(record["outcome"]), cached=True)
    except (OSError, ValueError, KeyError, TypeError):
        return None  # no record, a damaged one, or no output: the job runs again


def record(job: Job, key: str, outcome: Outcome) -> None:
    """Keep the outcome of a job beside its output.

    Raises:
        OutputError: the disk is full or not writable.
    """
    content = {"key": key, "sha256": file_digest(job.output), "outcome": outcome.as_json()}
    with written_whole(beside(job, ".json"), overwrite=True) as file:
        file.write(json.dumps(content, indent=1).encode())
