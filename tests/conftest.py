"""One environment for every test, and small models that many of them read."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import ttcompress

# Typer looks at these once, when it is first imported, and would draw differently under CI.
for name in ("GITHUB_ACTIONS", "FORCE_COLOR", "PY_COLORS", "TERMINAL_WIDTH"):
    os.environ.pop(name, None)
os.environ |= {"NO_COLOR": "1", "COLUMNS": "100", "_TYPER_FORCE_DISABLE_TERMINAL": "1"}

torch.set_num_threads(1)  # tensors here are small: threads would only fight over the cores


class TinyModel(nn.Module):
    """An embedding of 11 x 6, a 2-layer LSTM of hidden size 8 and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.lstm = nn.LSTM(6, 8, num_layers=2)
        self.head = nn.Linear(8, 11)


@pytest.fixture(scope="session")
def tiny_state_dict() -> OrderedDict[str, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return OrderedDict(TinyModel().state_dict())


@pytest.fixture(scope="session")
def tiny_checkpoint(
    tmp_path_factory: pytest.TempPathFactory, tiny_state_dict: OrderedDict[str, Tensor]
) -> Path:
    """The path of a plain state dict as `torch.save` writes it; not to be changed."""
    path = tmp_path_factory.mktemp("tiny") / "tiny.pt"
    torch.save(tiny_state_dict, path)
    return path


@pytest.fixture(scope="session")
def tiny_artifact(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of `tiny_checkpoint` in MPS with int8 cores under factor 2; not to be changed."""
    path = tmp_path_factory.mktemp("artifact") / "tiny.mps.safetensors"
    recipe = {"version": 1, "budget": {"factor": 2}, "store": "int8"}
    ttcompress.compress(tiny_checkpoint, recipe).save(path)
    return path
