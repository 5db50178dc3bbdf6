from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ttcompress.checkpoint import Checkpoint, open_checkpoint
from ttcompress.layers.structure import Structure, structure_of

Save = Callable[..., Checkpoint]
Describe = Callable[..., Structure]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Writes a state dict, and content beside it, as a training script would; opens it."""

    def saved(state_dict: dict[str, Tensor], **content: Any) -> Checkpoint:
        path = tmp_path / "model.pt"
        torch.save({"state_dict": state_dict, **content} if content else state_dict, path)
        return open_checkpoint(path)

    return saved


@pytest.fixture
def describe(save: Save) -> Describe:
    """The structure of a module (or a state dict) with content beside it."""

    def described(model: Any, **content: Any) -> Structure:
        state = model if isinstance(model, dict) else model.state_dict()
        return structure_of(save(state, **content))

    return described
