"""Compressed models made from modules, and a whole model to export."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import ttcompress
from ttcompress.artifact import CompressedModel

pytest.importorskip("onnxruntime")

Compressed = Callable[..., CompressedModel]


@pytest.fixture
def compressed(tmp_path: Path) -> Compressed:
    """Compress a module's state dict, under `names`, by a recipe's keys."""

    def make(module: nn.Module, **keys: Any) -> CompressedModel:
        path = tmp_path / "model.pt"
        torch.save(module.state_dict(), path)
        return ttcompress.compress(path, {"version": 1, **keys})

    return make
