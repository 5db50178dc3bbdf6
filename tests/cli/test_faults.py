"""The machine fails: a full disk, a file that is no longer there, too little memory.

Each ends in one line with the exit code, and leaves nothing behind. A full disk that is one:

    mount -t tmpfs -o size=64k tmpfs FOLDER; ttcompress export FILE -o FOLDER/out.onnx
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path

import pytest
import torch

from ttcompress.jobs import records, workers
from ttcompress.jobs.board import Board
from ttcompress.jobs.job import QueuedJob
from ttcompress.recipe import load_recipe
from ttcompress.results.outcome import Outcome
from ttcompress.workflows.batch_job import BatchJob, Compression, outcome_of, queue_jobs
from ttcompress.workflows.manifest import read_manifest
from ttcompress.workflows.sweep import sweep_jobs

TASK = "task: {name: language-model, text: text.txt, batch: 8, steps: 20}\n"
FILES = {
    "small.yaml": "version: 1\nbudget: {factor: 3}\n",
    "tuned.yaml": f"version: 1\nbudget: {{factor: 3}}\n{TASK}finetune: {{max_steps: 2}}\n",
    "drop.yaml": f"version: 1\nbudget: {{drop: 90%}}\n{TASK}",
    "models.yaml": "version: 1\noutput: done\njobs: [{path: model.pt, recipe: small.yaml}]\n",
}
SWEEP = "sweep model.pt -r small.yaml --factors 3 --formats mps --folder swept"
WRITERS = {
    "decompose": "decompose model.pt -r small.yaml -o out/it",
    "decompose, then tune": "decompose model.pt -r tuned.yaml -o out/it",
    "decompose, by a search": "decompose model.pt -r drop.yaml -o out/it",
    "finetune": "finetune small.st -r tuned.yaml --original model.pt -o out/it",
    "restore": "restore small.st -o out/it",
    "report": "report small.st --as html -o out/it",
    "report as JSON": "report small.st --as json -o out/it",
    "junit": "batch models.yaml --junit out/it",
    "markdown": "batch models.yaml --markdown out/it",
    "picture": f"{SWEEP} --picture out/it.svg",
    "pick": f"{SWEEP} --pick mps@3 -o out/it",
}


def worked(job: QueuedJob[BatchJob], folder: Path) -> Outcome:
    """What becomes of a job, in this process."""
    records.beside(job.output, "").parent.mkdir(parents=True, exist_ok=True)
    worker = workers.Worker(Compression(), Board(folder), threads=1, force=False)
    return outcome_of(job.payload, worker(job)[1])


@pytest.fixture(scope="module")
def made(case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, its text, recipes, an artifact, and what a batch and a sweep did before."""
    folder = tmp_path_factory.mktemp("made")
    shutil.copy(case.path, folder / "model.pt")
    shutil.copy(case.path.parent / "text.txt", folder)
    for name, text in FILES.items():
        (folder / name).write_text(text)
    case.compressed.save(folder / "small.st")
    (folder / "out").mkdir()
    with pytest.MonkeyPatch.context() as here:
        here.chdir(folder)
        place, recipe = ("mps", 3.0), load_recipe("small.yaml")
        points = sweep_jobs(Path("model.pt"), recipe, [place], Path("swept"))
        for one in queue_jobs((*read_manifest(Path("models.yaml"))[1], *points)):
            assert not worked(one, tmp_path_factory.mktemp("board")).error
    return folder


@pytest.fixture
def there(made: Path, run, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    return made


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.slow
@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_told_by_every_writer(
    writer: str, there: Path, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, before = tempfile.mkstemp, sorted(there.rglob("*"))

    def full_below_out(*, dir: Path, **options: str) -> object:
        return full() if dir.name == "out" else make(dir=dir, **options)

    monkeypatch.setattr("tempfile.mkstemp", full_below_out)
    result = run(*WRITERS[writer].split(), "-q")
    assert result.code == 1
    assert result.err.startswith("error: out/it")
    assert "the disk is full; nothing was written. Free some space" in result.err
    assert sorted(there.rglob("*")) == before


@pytest.fixture
def job(there: Path) -> QueuedJob[BatchJob]:
    shutil.rmtree(there / "done", ignore_errors=True)
    (one,) = queue_jobs(read_manifest(there / "models.yaml")[1])
    return one


@pytest.mark.parametrize(
    ("place", "name"),
    [(Board, "start"), (workers, "lock_output"), (tempfile, "mkstemp"), (records, "file_digest")],
)
def test_a_full_disk_in_a_worker_is_an_outcome(
    place: object,
    name: str,
    job: QueuedJob[BatchJob],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(place, name, full)
    outcome = worked(job, tmp_path)
    assert (outcome.status, outcome.kind) == ("failed", "OutputError")
    assert "disk is full" in outcome.error or "No space left on device" in outcome.error
    assert "Free some space" in outcome.error and "Traceback" not in outcome.error


@pytest.mark.parametrize("refusal", ["python", "torch"])
def test_too_little_memory_in_a_worker_is_an_outcome(
    refusal: str, job: QueuedJob[BatchJob], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asks(*_: object, **__: object) -> None:
        bytearray(1 << 60) if refusal == "python" else torch.empty(1 << 60)

    monkeypatch.setattr("ttcompress.workflows.compress.compress", asks)
    outcome = worked(job, tmp_path)
    assert (outcome.status, outcome.kind) == ("failed", "OutOfMemoryError")
    assert outcome.error.startswith(f"{job.payload.model}: needs more memory than this machine has")
    assert outcome.error.endswith("run fewer jobs at once (-j), or use a larger machine.")


def test_a_board_that_cannot_be_made_ends_the_batch(
    there: Path, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_module("ttcompress.jobs.board"), "TemporaryDirectory", full)
    result = run("batch", "models.yaml", "--force")
    assert result.code == 1
    assert "error: " in result.err and "cannot be written: No space left on device" in result.err


@pytest.mark.parametrize(
    "refusal",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
    ],
)
def test_too_little_memory_is_one_line(refusal, there: Path, run, monkeypatch) -> None:
    def asks(*_: object, **__: object) -> None:
        raise refusal

    monkeypatch.setattr("ttcompress.checkpoint.checkpoint.read_tensor", asks)
    result = run("decompose", "model.pt", "--factor", "3", "-o", "out/it")
    assert result.code == 1
    assert result.err.startswith("error: model.pt: lstm.weight_")
    assert "bytes): needs more memory than this machine has" in result.err
    assert not list((there / "out").iterdir())


TIGHT = """
import resource, sys
from pathlib import Path
import torch
import ttcompress.workflows.compress
from ttcompress.cli import app
from rich.console import Console
torch.set_num_threads(1)
torch.linalg.svdvals(torch.randn(8, 8))
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + (40 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
app(sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc how large the program is")
def test_a_model_that_is_too_large_for_the_machine(folder: Path) -> None:
    matrices = {f"lstm.weight_{kind}_l0": torch.zeros(4096, 1024) for kind in ("ih", "hh")}
    torch.save({name: torch.randn_like(zeros) for name, zeros in matrices.items()}, "large.pt")
    command = ["decompose", "large.pt", "--tolerance", "0.5", "-o", "small.st", "-q"]
    found = subprocess.run(
        [sys.executable, "-c", TIGHT, *command], capture_output=True, text=True, check=False
    )
    assert found.returncode == 1, found.stderr
    assert found.stderr.startswith("error: "), found.stderr
    assert "needs more memory than this machine has" in found.stderr
    assert os.listdir() == ["large.pt"]
