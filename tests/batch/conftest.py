"""A folder with a manifest over small models, and what its jobs look like."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ttcompress.batch.job import Job
from ttcompress.batch.manifest import read_manifest

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


Jobs = Callable[[str], tuple[Job, ...]]


@pytest.fixture
def jobs(folder: Path) -> Jobs:
    """Read a manifest's text, as if it lay in the folder."""

    def read(text: str = MANIFEST) -> tuple[Job, ...]:
        (folder / "manifest.yaml").write_text(text)
        return read_manifest(folder / "manifest.yaml")[1]

    return read
