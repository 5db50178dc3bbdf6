"""Training on recorded inputs: what is run, what is held out, which files are refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ttcompress.checkpoint import open_checkpoint
from ttcompress.errors import InputError, RecipeError
from ttcompress.tasks.protocol import OutputKind
from ttcompress.tasks.record import RECORD, record
from ttcompress.tasks.recorded import MOST_HELD_OUT, RecordedTask
from ttcompress.tasks.recording import read_recording


class Pair(nn.Module):
    """An encoder that reads packed sequences, and a decoder that starts from its state."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.LSTM(3, 8, batch_first=True, bidirectional=True)
        self.decoder, self.cell = nn.GRU(2, 8, batch_first=True), nn.LSTMCell(8, 6)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        packed = pack_padded_sequence(x, lengths, True, enforce_sorted=False)
        _, (h, _) = self.encoder(packed)
        out, _ = self.decoder(y, h[:1])
        state = None
        for step in out.unbind(1):
            state = self.cell(step, state)
        assert state is not None
        return state[0]


@pytest.fixture(scope="module")
def pair() -> Pair:
    torch.manual_seed(0)
    return Pair().eval()


@pytest.fixture(scope="module")
def recording(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recording") / "inputs.safetensors"
    generator = torch.Generator().manual_seed(0)
    batches = [
        (
            torch.randn(6, 9, 3, generator=generator),
            torch.randint(2, 10, (6,), generator=generator),
            torch.randn(6, 5, 2, generator=generator),
        )
        for _ in range(4)
    ]
    record(pair, batches, path)
    return path


def test_the_original_has_no_error_and_others_do(pair: Pair, recording: Path) -> None:
    task = RecordedTask(open_checkpoint(pair), recording)
    model = task.build()
    model.load_state_dict({n: t for n, t in pair.state_dict().items() if n in task.covers})
    assert task.evaluate(model) == {"output_error": 0.0, "state_error": 0.0}
    with torch.no_grad():
        model.decoder.weight_hh_l0 *= 1.5  # type: ignore[union-attr, operator]
    found = task.evaluate(model)
    assert 0.01 < found["output_error"] < 1 and found["state_error"] > 0.01


def test_states_and_lengths_reach_the_layers(pair: Pair, recording: Path) -> None:
    """The outputs are those that the layers gave when they were recorded."""
    checkpoint = open_checkpoint(pair)
    recorded = read_recording(recording, checkpoint)
    decoder = recorded.chunk("decoder.", 0)
    assert decoder.states[0].shape == (1, 6, 8) and decoder.states[0].any()
    task = RecordedTask(checkpoint, recording, batch=100)
    model = task.build()
    model.load_state_dict({n: t for n, t in pair.state_dict().items() if n in task.covers})
    windows = [w for w in task.train_batches(0, 0) if w.prefix == "encoder."]
    with torch.no_grad():
        found, _ = task.outputs(model, windows[0], None)
        chunk = windows[0].chunk
        assert chunk.lengths is not None and len(found) == int(chunk.lengths.sum())
        packed = pack_padded_sequence(
            chunk.inputs.float(), chunk.lengths, True, enforce_sorted=False
        )
        wanted, _ = pad_packed_sequence(pair.encoder(packed)[0], batch_first=True)
    assert torch.allclose(found[: int(chunk.lengths[0])], wanted[0, : int(chunk.lengths[0])])


def test_sequences_of_all_chunks_are_mixed_with_their_own_states(
    pair: Pair, recording: Path
) -> None:
    checkpoint = open_checkpoint(pair)
    recorded = read_recording(recording, checkpoint)
    known = {
        tuple(inputs.flatten().tolist()): (number, state)
        for number in range(4)
        for chunk in [recorded.chunk("decoder.", number)]
        for inputs, state in zip(chunk.inputs, chunk.states[0].unbind(1), strict=True)
    }
    task, seen = RecordedTask(checkpoint, recording, batch=8), 0
    for window in task.train_batches(0, 0):
        if window.prefix != "decoder.":
            continue
        places = [known[tuple(inputs.flatten().tolist())] for inputs in window.chunk.inputs]
        assert len({number for number, _ in places}) > 1
        assert torch.equal(torch.stack([s for _, s in places], 1), window.chunk.states[0])
        seen += len(places)
    assert seen == 24 - 2  # held out: the numbers 29 and 39, after 24 of the encoder


def test_nothing_is_both_trained_and_measured_on(tmp_path: Path) -> None:
    lstm = nn.LSTM(1, 4, batch_first=True)
    values = torch.arange(23.0)[:, None, None].expand(23, 6, 1) / 23
    save_file({"x": values.contiguous()}, tmp_path / "x.safetensors")
    task = RecordedTask(open_checkpoint(lstm), tmp_path / "x.safetensors")
    trained = torch.cat([w.chunk.inputs[:, 0] for w in task.train_batches(0, 0)])
    held = torch.cat([w.chunk.inputs[:, 0] for w in task._windows(held_out=True)])
    assert len(trained) + len(held) == 23 and len(held) == 2
    assert not set(trained.flatten().tolist()) & set(held.flatten().tolist())


def test_of_a_long_recording_no_more_is_held_out_than_is_needed(tmp_path: Path) -> None:
    lstm = nn.LSTM(1, 1, batch_first=True)
    save_file({"x": torch.zeros(100, 20 * MOST_HELD_OUT // 100, 1)}, tmp_path / "x.safetensors")
    task = RecordedTask(open_checkpoint(lstm), tmp_path / "x.safetensors", batch=100, steps=512)
    trained = sum(w.chunk.inputs.numel() for w in task.train_batches(0, 0))
    assert 0.95 * MOST_HELD_OUT <= 20 * MOST_HELD_OUT - trained <= 1.05 * MOST_HELD_OUT


class Forecaster(nn.Module):
    """Values from values: nothing in its tensors says that the linear layer has no classes."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(2, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(self.lstm(x)[0])
        return found


def test_values_are_compared_behind_the_linear_layer(tmp_path: Path) -> None:
    """What it does not see costs nothing; what it sees is in units of its outputs' deviation."""
    torch.manual_seed(0)
    model = Forecaster().eval()
    with torch.no_grad():
        model.head.weight[:, 4:] = model.lstm.weight_hh_l0[:, 4:] = 0.0
    inputs = torch.randn(20, 12, 2)
    record(model, [inputs], tmp_path / "x.safetensors", predicts="values")
    task = RecordedTask(open_checkpoint(model), tmp_path / "x.safetensors")
    assert [m.name for m in task.metrics] == ["output_error", "state_error"]
    other = task.build()
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        other.lstm.bias_ih_l0[28:] += 1.0  # type: ignore[union-attr, operator, index]
    blind = task.evaluate(other)["output_error"]
    assert blind < 1e-6
    with torch.no_grad():
        other.head.bias += 0.5  # type: ignore[union-attr, operator]
        wanted = model(inputs)
    moved = task.evaluate(other)["output_error"]
    assert moved == pytest.approx(0.5 / float(wanted.std()), rel=0.1)


def test_outputs_as_wide_as_the_inputs_are_classes_where_these_are_symbols(tmp_path: Path) -> None:
    model = nn.ModuleDict({"lstm": nn.LSTM(3, 8, batch_first=True), "head": nn.Linear(8, 3)})
    values = torch.rand(20, 12, 3)
    symbols = nn.functional.one_hot(values.argmax(-1), 3).float()
    for inputs, first in ((symbols, "divergence"), (values, "output_error")):
        save_file({"lstm": inputs}, tmp_path / "x.safetensors")
        task = RecordedTask(open_checkpoint(model), tmp_path / "x.safetensors")
        assert task.metrics[0].name == first


def test_a_linear_layer_of_which_nothing_is_known_is_left_out(tmp_path: Path) -> None:
    model = Forecaster().eval()
    record(model, [torch.randn(20, 12, 2)], tmp_path / "x.safetensors")
    task = RecordedTask(open_checkpoint(model), tmp_path / "x.safetensors")
    assert task.covers == {name for name in model.state_dict() if name.startswith("lstm.")}


@pytest.mark.parametrize(
    ("said", "distance"),
    [
        ("classes", math.log(math.exp(2) + 2) - 2 / 3 - math.log(3)),
        ("binary", (math.log(2 * math.cosh(2) + 2) / 2 - math.log(2)) / 3),
    ],
)
def test_what_the_recording_says_of_the_outputs_is_believed(
    said: OutputKind, distance: float, tmp_path: Path
) -> None:
    """Of uniform predictions from those with logits 2, 0, 0."""
    model = Forecaster().eval()
    record(model, [torch.randn(20, 12, 2)], tmp_path / "x.safetensors", predicts=said)
    task = RecordedTask(open_checkpoint(model), tmp_path / "x.safetensors")
    assert [m.name for m in task.metrics][:2] == ["divergence", "agreement"]
    window = next(task.train_batches(0, 0))
    found = task.distillation(torch.tensor([[2.0, 0.0, 0.0]]), torch.zeros(1, 3), window)
    assert float(found) == pytest.approx(distance, rel=1e-4)


def test_one_long_sequence_is_cut(tmp_path: Path) -> None:
    lstm = nn.LSTM(1, 4, batch_first=True)
    save_file({"x": torch.randn(1, 5000, 1)}, tmp_path / "x.safetensors")
    task = RecordedTask(open_checkpoint(lstm), tmp_path / "x.safetensors")
    assert task.batches_per_epoch == sum(1 for _ in task.train_batches(0, 0))
    assert task.evaluate(task.build())["output_error"] > 0


def test_predictions_are_compared_where_the_classes_are_known(case, tmp_path: Path) -> None:
    table = case.checkpoint.tensor("embedding.weight")
    symbols = torch.randint(len(table), (20, 30), generator=torch.Generator().manual_seed(0))
    save_file({"lstm": table[symbols]}, tmp_path / "x.safetensors")
    task = RecordedTask(case.checkpoint, tmp_path / "x.safetensors")
    assert [m.name for m in task.metrics][:2] == ["divergence", "agreement"]
    assert task.covers >= {"lstm.weight_ih_l0", "head.weight", "head.bias"}
    assert "embedding.weight" not in task.covers


def test_a_recording_of_another_model_is_refused(pair: Pair, recording: Path) -> None:
    torch.manual_seed(1)
    with pytest.raises(RecipeError, match="recorded from another model"):
        read_recording(recording, open_checkpoint(Pair()))
    with pytest.raises(RecipeError, match="is not a recurrent layer of the model"):
        read_recording(recording, open_checkpoint(nn.Sequential(nn.LSTM(3, 8), nn.Linear(8, 2))))


def _write(path: Path, tensors: dict[str, torch.Tensor], facts: dict[str, Any] | None) -> None:
    save_file(tensors, path, None if facts is None else {RECORD: json.dumps(facts)})


FACTS = {"version": 1, "chunks": {"": 1}, "predicts": None}


@pytest.mark.parametrize(
    ("tensors", "facts", "message"),
    [
        ({"x": torch.ones(2, 3)}, None, r"expected floats of shape \(batch, time, 1\)"),
        ({"x": torch.ones(2, 0, 1)}, None, "holds no inputs"),
        ({"x": torch.full((2, 3, 1), float("nan"))}, None, "6 of 6 values are NaN"),
        ({"x": torch.ones(1, 3, 1)}, None, "has 1 sequence, but at least 2"),
        (
            {"0.inputs": torch.ones(2, 3, 1), "0.lengths": torch.tensor([3, 9])},
            FACTS,
            "the longest 9, for 2 sequences of 3 steps",
        ),
        (
            {"0.inputs": torch.ones(2, 3, 1), "0.other": torch.ones(1)},
            FACTS | {"chunks": {"": 2}},
            "has no 1.inputs",
        ),
    ],
)
def test_recordings_that_do_not_fit(
    tensors: dict[str, torch.Tensor], facts: dict[str, Any] | None, message: str, tmp_path: Path
) -> None:
    _write(tmp_path / "x.safetensors", tensors, facts)
    with pytest.raises(RecipeError, match=message):
        RecordedTask(open_checkpoint(nn.LSTM(1, 4)), tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        (FACTS | {"version": 2}, "recording of version 2"),
        (FACTS | {"chunks": {"": 10**9}}, "more chunks than tensors"),
        (FACTS | {"predicts": "words"}, "predicts 'words'"),
        ({}, "metadata is damaged"),
    ],
)
def test_damaged_metadata(facts: dict[str, Any], message: str, tmp_path: Path) -> None:
    _write(tmp_path / "x.safetensors", {"0.inputs": torch.ones(2, 3, 1)}, facts)
    with pytest.raises(InputError, match=message):
        read_recording(tmp_path / "x.safetensors", open_checkpoint(nn.LSTM(1, 4)))
