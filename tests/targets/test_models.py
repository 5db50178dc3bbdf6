"""Whole models exported in a user's module, and every refusal on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import ttcompress
from ttcompress.targets.onnx import build as way
from ttcompress.targets.onnx import target as onnx
from ttcompress.targets.parts import task_part
from ttcompress.tasks.protocol import Task

WORDS = (torch.randint(40, (3, 5), generator=torch.Generator().manual_seed(0)),)
SMALL = {"budget": {"factor": 2}, "store": "int8"}
AXES = ({0: "batch", 1: "time"},)


class Model(nn.Module):
    """An embedding, a layer and a linear one, called as most code calls them."""

    def __init__(self, tied: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(40, 16)
        self.lstm = nn.LSTM(16, 16, batch_first=True)
        self.head = nn.Linear(16, 40)
        if tied:
            self.head.weight = self.embedding.weight

    def forward(self, words: torch.Tensor, state: Any = None) -> tuple[torch.Tensor, Any]:
        hidden, state = self.lstm(self.embedding(words), state)
        return self.head(hidden), state


def run(path: Path, **inputs: torch.Tensor) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {name: value.numpy() for name, value in inputs.items()})


@pytest.mark.slow
@pytest.mark.parametrize("format", ["mps", "mpo"])
def test_a_users_module_is_exported_whole_and_left_as_it_was(compressed, tmp_path, format) -> None:
    model = Model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    small = compressed(model, **SMALL, format=format, default="decompose")
    own = ttcompress.OwnModule(model, WORDS, AXES, outputs=("logits", "hn", "cn"))
    (made,) = ttcompress.export(small, tmp_path / "m.onnx", module=own)
    assert made.inputs == ("words",)
    assert type(model.lstm) is nn.LSTM
    assert all(torch.equal(before[name], model.state_dict()[name]) for name in before)
    words = torch.randint(40, (2, 11))
    dense = Model()
    dense.load_state_dict(small.state_dict())
    with torch.no_grad():
        wanted = dense(words)[0]
    np.testing.assert_allclose(run(made.file, words=words)[0], wanted, atol=1e-4)


@pytest.mark.slow
def test_nested_arguments_become_inputs_of_their_own(compressed, tmp_path) -> None:
    state = (torch.zeros(1, 3, 16),) * 2
    free = ({0: "batch", 1: "time"}, {1: "batch"}, {1: "batch"})
    own = ttcompress.OwnModule(Model(), (*WORDS, state), free)
    (made,) = ttcompress.export(compressed(Model(), **SMALL), tmp_path / "m.onnx", module=own)
    assert made.inputs == ("words", "state_0", "state_1")
    assert made.outputs == ("output_0", "output_1", "output_2")
    text, zeros = torch.randint(40, (1, 9)), torch.zeros(1, 1, 16)
    whole, *_ = run(made.file, words=text, state_0=zeros, state_1=zeros)
    first, *state = run(made.file, words=text[:, :4], state_0=zeros, state_1=zeros)
    hidden, memory = map(torch.from_numpy, state)
    rest, *_ = run(made.file, words=text[:, 4:], state_0=hidden, state_1=memory)
    np.testing.assert_allclose(np.concatenate([first, rest], 1), whole, atol=1e-5)


@pytest.mark.slow
def test_a_tied_matrix_is_in_the_file_once(compressed, tmp_path) -> None:
    keys = {
        "rules": [{"weights": "recurrent"}, {"weights": "all", "format": "dense"}],
        "default": "keep",
    }
    counts = []
    for tied in (False, True):
        model = Model(tied)
        own = ttcompress.OwnModule(model, WORDS, AXES)
        small = compressed(model, **keys, **SMALL)
        (made,) = ttcompress.export(small, tmp_path / "m.onnx", module=own, overwrite=True)
        counts.append(made.holds["uint8"])
    assert counts[0] - counts[1] == 40 * 16


@pytest.mark.slow
def test_a_wrong_graph_is_found(compressed, tmp_path, monkeypatch) -> None:
    """The comparison itself can fail: a graph of other weights."""
    own = ttcompress.OwnModule(Model(), WORDS, AXES)
    convert = way.convert

    def broken(module: nn.Module, *arguments: Any, **options: Any) -> Any:
        with torch.no_grad():
            module.head.bias += 0.01
        model = convert(module, *arguments, **options)
        with torch.no_grad():
            module.head.bias -= 0.01
        return model

    monkeypatch.setattr(way, "convert", broken)
    with pytest.raises(ttcompress.TTCompressError, match=r"differ from torch's by 0\.0"):
        ttcompress.export(compressed(Model(), **SMALL), tmp_path / "m.onnx", module=own)


class Counting(Model):
    def forward(self, words: torch.Tensor, state: Any = None) -> Any:
        if float(words.sum()) > 3:
            return super().forward(words, state)
        return super().forward(words + 1, state)


def test_a_module_that_torch_cannot_trace_is_refused(compressed, tmp_path) -> None:
    own = ttcompress.OwnModule(Counting(), WORDS, AXES)
    with pytest.raises(ttcompress.TTCompressError, match="torch cannot export this module"):
        ttcompress.export(compressed(Model(), **SMALL), tmp_path / "m.onnx", module=own)


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 8, batch_first=True)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> Any:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return self.lstm(packed)[1][0]


class Looped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(6, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = memory = x.new_zeros(x.shape[0], 8)
        for k in range(x.shape[1]):
            hidden, memory = self.cell(x[:, k], (hidden, memory))
        return hidden


class Convolved(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.lstm = nn.Conv1d(6, 6, 4), nn.LSTM(6, 8, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lstm(self.conv(x.transpose(1, 2)).transpose(1, 2))[0]


class Singular(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 8, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.svdvals(self.lstm(x)[0])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Packed(), r"packed sequences cannot be traced.*y\.gather\(1.*test_models.py, line"),
        (Looped(), r"makes the axis time constant, 9 as.*Export one step.*test_models.py, line"),
        pytest.param(Convolved(), "size of at least 4 on the axis time", marks=pytest.mark.slow),
        pytest.param(Singular(), "no operation for aten._linalg_svd", marks=pytest.mark.slow),
    ],
)
def test_what_cannot_be_exported_is_said_in_a_sentence(
    compressed, tmp_path, capfd, model, message
) -> None:
    example = (torch.zeros(3, 9, 6), torch.tensor([9, 2, 3]))[: 2 if type(model) is Packed else 1]
    axes = (*AXES, {0: "batch"})[: len(example)]
    own = ttcompress.OwnModule(model, example, axes)
    with pytest.raises(ttcompress.TTCompressError, match=message) as caught:
        ttcompress.export(compressed(model, **SMALL), tmp_path / "m.onnx", module=own)
    assert "\n" not in str(caught.value)
    assert not capfd.readouterr().err


class ByLength(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 8, batch_first=True)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        last = (lengths - 1).view(-1, 1, 1).expand(-1, 1, 8)
        return self.lstm(x)[0].gather(1, last).squeeze(1)


@pytest.mark.slow
def test_lengths_instead_of_packing_give_what_packing_gives(compressed, tmp_path) -> None:
    model, packed = ByLength(), Packed()
    small = compressed(model, **SMALL)
    packed.load_state_dict(small.state_dict())
    x, lengths = torch.randn(4, 11, 6), torch.tensor([2, 11, 1, 7])
    example = (torch.zeros(3, 9, 6), torch.tensor([9, 2, 3]))
    own = ttcompress.OwnModule(model, example, (*AXES, {0: "batch"}))
    (made,) = ttcompress.export(small, tmp_path / "m.onnx", module=own)
    with torch.no_grad():
        np.testing.assert_allclose(
            run(made.file, x=x, lengths=lengths)[0], packed(x, lengths)[0], atol=1e-5
        )


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (ttcompress.OwnModule(Model(), (*WORDS, 3), AXES), "only tensors"),
        (ttcompress.OwnModule(Model(), WORDS, ()), "1 tensors, but there are 1 names and axes"),
        (
            ttcompress.OwnModule(Model(), WORDS, AXES, outputs=("y",)),
            "1 outputs were named, but the module has 3",
        ),
    ],
)
def test_an_example_that_does_not_fit_is_refused(compressed, tmp_path, own, message) -> None:
    with pytest.raises(ttcompress.RecipeError, match=message):
        ttcompress.export(compressed(Model(), **SMALL), tmp_path / "m.onnx", module=own)


def test_arguments_that_contradict_each_other_are_refused(compressed, tmp_path) -> None:
    small = compressed(Model(), **SMALL)
    own = ttcompress.OwnModule(Model(), WORDS, AXES)
    with pytest.raises(ttcompress.RecipeError, match="use either a task or a module, not both"):
        ttcompress.export(small, tmp_path / "m.onnx", module=own, task="charlm")
    with pytest.raises(ttcompress.RecipeError, match="expected 'int8', got 'int4'"):
        ttcompress.export(small, tmp_path / "m.onnx", quantize="int4")


def test_an_output_that_exists_is_refused_before_any_work(compressed, tmp_path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"mine")
    with pytest.raises(ttcompress.OutputPathError, match="--overwrite"):
        ttcompress.export(compressed(Model(), **SMALL), path)
    assert path.read_bytes() == b"mine"


def test_without_the_extra_the_message_names_it(tmp_path, tiny_artifact, monkeypatch) -> None:
    monkeypatch.setattr(onnx, "PACKAGES", ("onnx", "no_such_package"))
    with pytest.raises(
        ttcompress.MissingExtraError, match=r"no_such_package.*ttcompress\[onnx\]"
    ) as caught:
        ttcompress.export(tiny_artifact, tmp_path / "m.onnx")
    assert caught.value.exit_code == 2


class Stateless(Model):
    """Returns a state and takes none."""

    def forward(self, words: torch.Tensor) -> tuple[torch.Tensor, Any]:  # type: ignore[override]
        return super().forward(words)


class Learned(Model):
    """Its first state is not of zeros."""

    def forward(self, words: torch.Tensor, state: Any = None) -> tuple[torch.Tensor, Any]:
        ones = torch.ones(1, words.shape[0], 16)
        return super().forward(words, (ones, ones) if state is None else state)


class Growing(Model):
    """What it returns besides the output is as long as the sequence."""

    def forward(self, words: torch.Tensor, state: Any = None) -> tuple[torch.Tensor, Any]:
        hidden, _ = super().forward(words)
        return hidden, hidden


def task_with(model: nn.Module) -> Task:
    batch = (*WORDS, *WORDS)
    return ttcompress.task_of(model, train=[batch], valid=[batch], loss="cross_entropy")


@pytest.mark.slow
def test_a_tasks_module_is_streamed_through_the_states_that_it_returns(
    compressed, tmp_path
) -> None:
    small = compressed(Model(), **SMALL)
    (made,) = ttcompress.export(small, tmp_path / "m.onnx", task=task_with(Model()))
    assert made.inputs == ("words", "h0", "c0") and made.outputs == ("output", "hn", "cn")
    text, zeros = torch.randint(40, (2, 9)), torch.zeros(1, 2, 16)
    whole, *_ = run(made.file, words=text, h0=zeros, c0=zeros)
    first, *state = run(made.file, words=text[:, :4], h0=zeros, c0=zeros)
    h0, c0 = map(torch.from_numpy, state)
    rest, *_ = run(made.file, words=text[:, 4:], h0=h0, c0=c0)
    np.testing.assert_allclose(np.concatenate([first, rest], 1), whole, atol=1e-5)


@pytest.mark.parametrize("model", [Stateless(), Learned(), Growing()])
def test_what_is_not_a_state_that_starts_at_zero_is_no_input(compressed, model) -> None:
    part = task_part(compressed(Model(), **SMALL), task_with(model))
    assert part.call.inputs == ("words",)
    assert part.call.outputs[0] == "output_0"


@pytest.mark.parametrize(
    ("given", "fact"),
    [
        ({"valid": [WORDS[0]]}, "has no training batch"),
        ({"train": [{"words": WORDS[0]}]}, "gives its model no tensor by position"),
    ],
)
def test_a_task_that_does_not_show_how_its_model_is_called(compressed, given, fact) -> None:
    task = ttcompress.task_of(Model(), predicts="classes", **given)
    with pytest.raises(ttcompress.RecipeError, match=f"{fact}, which .* Give the module"):
        task_part(compressed(Model(), **SMALL), task)


def test_a_state_beside_a_sequence_has_no_time_axis(compressed, tmp_path) -> None:
    """A loop around a cell, called by a task with its first state: the cure is the loop's."""

    class Monitor(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.LSTMCell(6, 8)

        def forward(self, x: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
            for step in x.unbind(1):
                h, c = self.cell(step, (h, c))
            return h

    batch = (torch.randn(3, 9, 6), torch.zeros(3, 8), torch.zeros(3, 8))
    task = ttcompress.task_of(Monitor(), train=[batch], valid=[batch], predicts="values")
    with pytest.raises(ttcompress.TTCompressError, match=r"time constant, 9 as.*Export one step"):
        ttcompress.export(compressed(Monitor(), **SMALL), tmp_path / "m.onnx", task=task)
