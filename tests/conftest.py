"""One environment for every test, and small models that many of them read."""

from __future__ import annotations

import gc
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hub_stand_in import TOKEN, HubStandIn, hub_stand_in
from torch import Tensor, nn

import ttcompress
from ttcompress.artifact import CompressedModel
from ttcompress.checkpoint import Checkpoint, open_checkpoint
from ttcompress.recipe import recipe_from
from ttcompress.tasks.evaluation import load_model
from ttcompress.tasks.protocol import Task
from ttcompress.tasks.registry import task_for
from ttcompress.workflows.compress import build
from ttcompress.workflows.job import prepare

# Typer looks at these once, when it is first imported, and would draw differently under CI.
for name in ("GITHUB_ACTIONS", "FORCE_COLOR", "PY_COLORS", "TERMINAL_WIDTH"):
    os.environ.pop(name, None)
os.environ |= {"NO_COLOR": "1", "COLUMNS": "100", "_TYPER_FORCE_DISABLE_TERMINAL": "1"}

torch.set_num_threads(1)  # tensors here are small: threads would only fight over the cores


@pytest.fixture
def living() -> Iterator[Callable[[], int]]:
    """Says what all tensors made since the test began take together, in bytes."""

    def count() -> int:
        gc.collect()
        tensors = [one for one in gc.get_objects() if type(one) in (Tensor, nn.Parameter)]
        storages = [tensor.untyped_storage() for tensor in tensors]
        return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())

    gc.collect()
    gc.freeze()  # to look at what was there before would take seconds
    yield count
    gc.unfreeze()


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


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubStandIn]:
    """A hub on this machine in place of the real one, and its owner's token."""
    constants = pytest.importorskip("huggingface_hub.constants")
    cache = str(tmp_path / "hub cache")
    with hub_stand_in() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        files = f"{hub.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", cache)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        for name, value in (("HF_TOKEN", TOKEN), ("HF_HUB_CACHE", cache)):
            monkeypatch.setenv(name, value)
        yield hub


TEXT = "the small boat sails over the quiet lake and the wind sings to the trees. " * 40


class CharacterModel(nn.Module):
    """As a user would write it: the state dict's keys are these names."""

    def __init__(self, symbols: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, 8)
        self.lstm = nn.LSTM(8, 24)
        self.head = nn.Linear(24, symbols)


@dataclass(frozen=True)
class Case:
    """A trained model, what it was compressed to, and the task of both."""

    path: Path
    checkpoint: Checkpoint
    compressed: CompressedModel
    task: Task


@pytest.fixture(scope="session")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("trained")
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")
    vocabulary = {character: index for index, character in enumerate(sorted(set(TEXT)))}
    torch.manual_seed(0)
    model = CharacterModel(len(vocabulary))
    path = folder / "model.pt"
    torch.save({"model": model.state_dict(), "vocab": vocabulary}, path)
    options = {"text": str(folder / "text.txt"), "batch": 8, "steps": 20}
    checkpoint = open_checkpoint(path)
    task = task_for(checkpoint, "language-model", options)
    trained = load_model(task, checkpoint)
    optimizer = torch.optim.AdamW(trained.parameters(), lr=2e-2)
    for epoch in range(6):
        state = None
        for batch in task.train_batches(epoch, seed=0):
            optimizer.zero_grad()
            outputs, state = task.outputs(trained, batch, state)
            task.loss(outputs, batch).backward()
            optimizer.step()
    torch.save({"model": trained.state_dict(), "vocab": vocabulary}, path)
    checkpoint = open_checkpoint(path)
    recipe = recipe_from({"version": 1, "format": "mps", "budget": {"factor": 16}, "store": "int4"})
    return Case(path, checkpoint, build(prepare(checkpoint, recipe)), task)
