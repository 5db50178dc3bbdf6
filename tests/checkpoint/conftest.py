"""A small model whose every tensor is known, and files made from it."""

import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ttcompress.checkpoint import Checkpoint, open_checkpoint


class Tagger(nn.Module):
    """Embedding, two-layer bidirectional LSTM, linear head; pickled whole in some tests."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Embedding(11, 6)
        self.lstm = nn.LSTM(6, 5, num_layers=2, bidirectional=True)
        self.decoder = nn.Linear(10, 11)
        self.register_buffer("steps", torch.tensor(3))

    def forward(self, tokens: Tensor) -> Tensor:
        hidden, _ = self.lstm(self.encoder(tokens))
        return self.decoder(hidden)


@pytest.fixture
def tagger() -> Tagger:
    torch.manual_seed(0)
    return Tagger()


@pytest.fixture
def state(tagger: Tagger) -> OrderedDict[str, Tensor]:
    return tagger.state_dict()


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., Checkpoint]:
    """Save a value with `torch.save` and open the file."""

    def save_and_open(value: object, key: str | None = None, **options: object) -> Checkpoint:
        path = tmp_path / "model.bin"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.save(value, path, **options)
        return open_checkpoint(path, key)

    return save_and_open
