"""A folder with a manifest over small models, and what its jobs look like."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ttcompress.workflows.batch_job import BatchJob
from ttcompress.workflows.manifest import read_manifest

HALF = "{version: 1, budget: {factor: 2}, store: int8}"
MANIFEST = """
version: 1
output: out
matrix:
  models: [models/*.pt]
  recipes: [half.yaml, balanced]
"""


@pytest.fixture
def folder(tmp_path: Path, tiny_checkpoint: Path) -> Path:
    """models/a.pt and models/b.pt, half.yaml, and manifest.yaml: both under it and `balanced`."""
    (tmp_path / "models").mkdir()
    shutil.copy(tiny_checkpoint, tmp_path / "models" / "a.pt")
    content = torch.load(tiny_checkpoint)
    torch.save({name: -tensor for name, tensor in content.items()}, tmp_path / "models" / "b.pt")
    (tmp_path / "half.yaml").write_text(HALF)
    (tmp_path / "manifest.yaml").write_text(MANIFEST)
    return tmp_path


Jobs = Callable[[str], tuple[BatchJob, ...]]


@pytest.fixture
def jobs(folder: Path) -> Jobs:
    """Read a manifest's text, as if it lay in the folder."""

    def read(text: str = MANIFEST) -> tuple[BatchJob, ...]:
        (folder / "manifest.yaml").write_text(text)
        return read_manifest(folder / "manifest.yaml")[1]

    return read


TASK = '''
import os, signal, time
from pathlib import Path

import torch
from torch import nn

from ttcompress import Metric


class Own:
    """Kills its own process the first `kills` times, raises `error`, then measures."""

    name = "own"
    metrics = (Metric("score", higher_is_better=True),)
    batches_per_epoch = 0

    def __init__(self, structure, mark="mark", kills=0, error="", wait=0):
        marks = Path(f"{mark}.starts")
        with marks.open("ab") as file:
            file.write(b".")
        if marks.stat().st_size <= kills:
            os.kill(os.getpid(), signal.SIGKILL)
        Path(f"{mark}.threads").write_text(str(torch.get_num_threads()))
        time.sleep(wait)
        if error:
            raise {"exit": SystemExit, "value": ValueError}[error]("of a task")

    def build(self):
        model = nn.Module()
        model.embedding = nn.Embedding(11, 6)
        model.lstm = nn.LSTM(6, 8, num_layers=2)
        model.head = nn.Linear(8, 11)
        return model

    def evaluate(self, model):
        return {"score": float(model.head.weight.abs().sum())}

    train_batches = outputs = loss = evaluate
'''


@pytest.fixture
def own_task(folder: Path) -> str:
    """A task of a user's own, beside the manifest."""
    (folder / "own.py").write_text(TASK)
    return "own.py:Own"
