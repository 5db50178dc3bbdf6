"""Recording what recurrent layers are given: the file holds what the layers saw, and no more."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import ttcompress
from ttcompress.tasks.record import RECORD, record


class Reader(nn.Module):
    """An encoder whose last state a decoder starts from."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.LSTM(3, 5), nn.LSTM(2, 5, batch_first=True)
        self.head = nn.Linear(5, 4)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        _, state = self.encoder(x)
        out: torch.Tensor = self.head(self.decoder(y, state)[0])
        return out


def read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, json.loads(file.metadata()[RECORD])


@pytest.fixture
def model() -> Reader:
    torch.manual_seed(0)
    return Reader()


def test_inputs_and_first_states_are_recorded(model: Reader, tmp_path: Path) -> None:
    x, y = torch.randn(7, 2, 3), torch.randn(2, 6, 2)
    found = record(model, [(x, y)] * 2, tmp_path / "r.safetensors", linear=True)
    tensors, facts = read(tmp_path / "r.safetensors")
    assert facts["chunks"] == {"encoder": 2, "decoder": 2, "head": 2}
    assert torch.allclose(tensors["encoder.1.inputs"].float(), x.transpose(0, 1), atol=2e-3)
    assert torch.allclose(tensors["decoder.0.inputs"].float(), y, atol=2e-3)
    with torch.no_grad():
        wanted, (h, c) = model.encoder(x)
    assert torch.allclose(tensors["decoder.0.h0"].float(), h, atol=1e-3)
    assert torch.allclose(tensors["decoder.0.c0"].float(), c, atol=1e-3)
    assert "encoder.0.h0" not in tensors and "encoder.0.lengths" not in tensors
    assert torch.allclose(tensors["encoder.check"], wanted[:, 0])
    assert found.positions == {"encoder": 28, "decoder": 24, "head": 24} and found.complete
    assert found.bytes == (tmp_path / "r.safetensors").stat().st_size


def test_packed_sequences_keep_their_lengths_and_order(tmp_path: Path) -> None:
    lstm, x = nn.LSTM(3, 5, batch_first=True), torch.randn(3, 6, 3)
    packed = pack_padded_sequence(x, torch.tensor([2, 6, 4]), True, enforce_sorted=False)
    record(lstm, [packed], tmp_path / "r.safetensors")
    tensors, _ = read(tmp_path / "r.safetensors")
    assert tensors["0.lengths"].tolist() == [2, 6, 4]
    assert torch.allclose(tensors["0.inputs"][1].float(), x[1], atol=2e-3)
    assert not tensors["0.inputs"][0, 2:].any() and len(tensors["check"]) == 2


def test_the_steps_of_a_loop_are_one_chunk(tmp_path: Path) -> None:
    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.LSTMCell(3, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            state = None
            for step in x.unbind(1):
                state = self.cell(step, state)
            assert state is not None
            return state[0]

    record(Loop(), [torch.randn(2, 6, 3)], tmp_path / "r.safetensors")
    tensors, facts = read(tmp_path / "r.safetensors")
    assert facts["chunks"] == {"cell": 2}  # the first step has no state, the others do
    shapes = {tensors[f"cell.{k}.inputs"].shape for k in (0, 1)}
    assert shapes == {(2, 1, 3), (10, 1, 3)} and tensors["cell.1.h0"].shape == (1, 10, 5)


def test_a_single_sequence_without_a_batch_is_one_of_a_batch(tmp_path: Path) -> None:
    lstm, x = nn.LSTM(3, 5), torch.randn(6, 3)
    state = torch.randn(1, 5), torch.randn(1, 5)
    record(lstm, [{"input": x, "hx": state}], tmp_path / "r.safetensors")
    tensors, _ = read(tmp_path / "r.safetensors")
    assert torch.allclose(tensors["0.inputs"].float(), x[None], atol=2e-3)
    assert torch.allclose(tensors["0.h0"].float(), state[0][:, None], atol=2e-3)
    with torch.no_grad():
        assert torch.allclose(tensors["check"], lstm(x, state)[0], atol=1e-5)


def test_values_beyond_float16_stay_in_float32(tmp_path: Path) -> None:
    record(nn.GRU(1, 4), [torch.full((3, 1, 1), 1e6)], tmp_path / "large.safetensors")
    record(nn.GRU(1, 4), [torch.full((3, 1, 1), 1e-7)], tmp_path / "small.safetensors")
    record(nn.GRU(1, 4), [torch.full((3, 1, 1), 0.5)], tmp_path / "usual.safetensors")
    kinds = [
        read(tmp_path / f"{name}.safetensors")[0]["0.inputs"].dtype
        for name in ("large", "small", "usual")
    ]
    assert kinds == [torch.float32, torch.float32, torch.float16]


def test_an_endless_loader_ends_at_the_limit(tmp_path: Path) -> None:
    def endless() -> Iterator[torch.Tensor]:
        while True:
            yield torch.randn(10, 1, 3)

    found = record(nn.LSTM(3, 5), endless(), tmp_path / "r.safetensors", most_bytes=2_000)
    assert not found.complete and 2_000 <= found.bytes < 8_000


def test_the_model_stays_in_its_mode_and_keeps_no_hook(model: Reader, tmp_path: Path) -> None:
    model.train()
    batch = (torch.randn(4, 2, 3), torch.randn(2, 3, 2))
    record(model, [batch], tmp_path / "r.safetensors")
    assert model.training and model.encoder.training
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("model", "batches", "message"),
    [
        (nn.Linear(2, 2), [torch.ones(1, 2)], "Linear has no recurrent layer"),
        (nn.LSTM(2, 2), [], "no batch reached"),
        (nn.LSTM(2, 2), [torch.full((1, 1, 2), float("nan"))], "is given NaN"),
    ],
)
def test_what_gives_no_recording_leaves_no_file(
    model: nn.Module, batches: list[torch.Tensor], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ttcompress.RecipeError, match=message):
        record(model, batches, tmp_path / "r.safetensors")
    assert not list(tmp_path.iterdir())
