from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from ttcompress.artifact import CompressedModel
from ttcompress.checkpoint import Checkpoint, open_checkpoint
from ttcompress.evaluate import loaded_model, task_for
from ttcompress.fitting import decompose
from ttcompress.recipe import recipe_from
from ttcompress.tasks.protocol import Task

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
    folder = tmp_path_factory.mktemp("finetune")
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")
    vocabulary = {character: index for index, character in enumerate(sorted(set(TEXT)))}
    torch.manual_seed(0)
    model = CharacterModel(len(vocabulary))
    path = folder / "model.pt"
    torch.save({"model": model.state_dict(), "vocab": vocabulary}, path)
    options = {"text": str(folder / "text.txt"), "batch": 8, "steps": 20}
    checkpoint = open_checkpoint(path)
    task = task_for(checkpoint, "language-model", options)
    trained = loaded_model(task, checkpoint)
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
    return Case(path, checkpoint, decompose(checkpoint, recipe), task)
