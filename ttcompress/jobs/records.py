"""Remembers finished jobs: a record and a lock for each output, in a folder beside it.

compressed/charlm.small.safetensors
compressed/.ttcompress-batch/charlm.small.safetensors.json    key, hash of the output, outcome
"""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from filelock import FileLock

from ttcompress.jobs.job import Payload, QueuedJob, Result, Work
from ttcompress.system.files import file_digest, written_whole
from ttcompress.system.json import read_json

FOLDER = ".ttcompress-batch"


def beside(output: Path, suffix: str) -> Path:
    """The file in the folder of records that belongs to an output."""
    return output.parent / FOLDER / f"{output.name}{suffix}"


def lock_output(output: Path) -> AbstractContextManager[object]:
    """Lock an output against other batches in the same folder; the lock ends with the process."""
    return FileLock(beside(output, ".lock"))


def find_record(job: QueuedJob[Payload], work: Work[Payload]) -> Result | None:
    """The recorded result of a job, if its key and its output are unchanged."""
    try:
        record = read_json(beside(job.output, ".json").read_bytes())
        if record["key"] != job.key or record["sha256"] != file_digest(job.output):
            return None
        facts = record["outcome"]
        work.check(facts)
        return Result(facts, facts["seconds"], facts["attempts"], cached=True)
    except (OSError, ValueError, KeyError, TypeError):
        return None  # no record, a damaged one, or no output: the job runs again


def record(job: QueuedJob[Any], result: Result) -> None:
    """Record the result of a job beside its output.

    Raises:
        OutputError: the disk is full or not writable.
    """
    content = {"key": job.key, "sha256": file_digest(job.output), "outcome": result.as_json()}
    with written_whole(beside(job.output, ".json"), overwrite=True) as file:
        file.write(json.dumps(content, indent=1).encode())
