from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ttcompress.checkpoint import Checkpoint, open_checkpoint
from ttcompress.errors import RecipeError
from ttcompress.trains.stored import StoredWeight
from ttcompress.workflows.compress import compress
from ttcompress.workflows.drift import SEQUENCES, STEPS, drift_over_time

FULL = {"version": 1, "store": "float32", "budget": {"tolerance": 0}}
RANK_ONE = {"version": 1, "store": "float32", "budget": {"rank": 1}}


def saved(state_dict: dict[str, Tensor], tmp_path: Path) -> Checkpoint:
    torch.save(state_dict, tmp_path / "model.pt")
    return open_checkpoint(tmp_path / "model.pt")


def two_layers() -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict({"a": nn.LSTM(5, 6, 2), "b": nn.GRU(6, 7, bidirectional=True)})


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    return saved(two_layers().state_dict(), tmp_path)


def test_at_full_rank_nothing_drifts(checkpoint):
    drift = drift_over_time(checkpoint, compress(checkpoint, FULL))
    assert list(drift) == ["a.", "b."]
    for steps in drift.values():
        assert list(steps) == ["1", "10", "100"]
        assert max(steps.values()) < 1e-5


def test_it_is_the_difference_of_the_two_models(checkpoint):
    torch.manual_seed(1)
    inputs = {"a.": torch.randn(3, 12, 5), "b.": torch.randn(3, 12, 6)}
    compressed = compress(checkpoint, RANK_ONE)
    drift = drift_over_time(checkpoint, compressed, inputs)
    before, after = two_layers(), two_layers()
    after.load_state_dict(compressed.state_dict())
    for name in ("a", "b"):
        with torch.no_grad():
            runs = [m[name](inputs[f"{name}."].transpose(0, 1))[0] for m in (before, after)]
        assert list(drift[f"{name}."]) == ["1", "10"]
        for step in (1, 10):
            at = [run[step - 1] for run in runs]
            if name == "b":  # the reverse direction starts at the end
                at = [torch.cat([run[step - 1, :, :7], run[-step, :, 7:]], 1) for run in runs]
            expected = ((at[1] - at[0]).norm() / at[0].norm()).item()
            assert drift[f"{name}."][str(step)] == pytest.approx(expected, rel=1e-5)
            assert expected > 1e-3


def test_one_layer_is_in_memory_at_a_time(tmp_path, living, monkeypatch):
    checkpoint = saved(
        {f"lstm.{k}": v for k, v in nn.LSTM(64, 64, 6).state_dict().items()}, tmp_path
    )
    compressed, counts = compress(checkpoint, RANK_ONE), []

    def counting(read: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def wrapped(*args: Any) -> Tensor:
            counts.append(living())
            return read(*args)

        return wrapped

    monkeypatch.setattr(Checkpoint, "tensor", counting(Checkpoint.tensor))
    monkeypatch.setattr(StoredWeight, "dense", counting(StoredWeight.dense))
    drift_over_time(checkpoint, compressed)
    assert len(counts) == 6 * 4 + 6 * 2
    layer = sum(weight.bytes for weight in checkpoint.weights) / 6
    inputs = SEQUENCES * max(STEPS) * 64 * 4
    assert max(counts) < 1.5 * layer + 3 * inputs  # of the model before, the layer's, its outputs


def test_the_seed_decides_the_inputs(checkpoint):
    compressed = compress(checkpoint, RANK_ONE)
    first = drift_over_time(checkpoint, compressed, seed=1)
    assert first == drift_over_time(checkpoint, compressed, seed=1)
    assert first != drift_over_time(checkpoint, compressed, seed=2)


def test_a_cell_drifts_as_its_steps_do(tmp_path):
    torch.manual_seed(0)
    cell = nn.LSTMCell(5, 6)
    checkpoint = saved({f"cell.{k}": v for k, v in cell.state_dict().items()}, tmp_path)
    compressed = compress(checkpoint, RANK_ONE)
    other = nn.LSTMCell(5, 6)
    other.load_state_dict({k[5:]: v for k, v in compressed.state_dict().items()})
    inputs = torch.randn(2, 10, 5)
    hidden = {}
    for key, module in (("before", cell), ("after", other)):
        state = None
        with torch.no_grad():
            for step in range(10):
                state = module(inputs[:, step], state)
        hidden[key] = state[0]
    expected = (hidden["after"] - hidden["before"]).norm() / hidden["before"].norm()
    drift = drift_over_time(checkpoint, compressed, {"cell.": inputs})
    assert drift["cell."]["10"] == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_every_kind_of_layer_can_drift(tmp_path):
    lstm = nn.LSTM(5, 6)
    state = {f"drop.{k}": v for k, v in lstm.state_dict().items()}
    state["drop.weight_hh_l0_raw"] = state.pop("drop.weight_hh_l0")
    layers = {"short": nn.GRU(5, 6).half(), "projected": nn.LSTM(5, 6, proj_size=3)}
    layers["plain"] = nn.RNN(5, 6, bias=False)
    state |= nn.ModuleDict(layers).state_dict()
    checkpoint = saved(state, tmp_path)
    drift = drift_over_time(checkpoint, compress(checkpoint, FULL))
    assert set(drift) == {"drop.", "short.", "projected.", "plain."}
    assert all(value < 2e-3 for steps in drift.values() for value in steps.values())


@pytest.mark.parametrize("stranger", ["bias_l0", "norm.weight", "weight_ci"])
def test_a_layer_that_is_not_torchs_does_not_drift(tmp_path, stranger):
    state = nn.ModuleDict({"a": nn.LSTM(5, 6), "b": nn.LSTM(5, 6)}).state_dict()
    checkpoint = saved({**state, f"a.{stranger}": torch.ones(24)}, tmp_path)
    compressed = compress(checkpoint, RANK_ONE)
    assert list(drift_over_time(checkpoint, compressed)) == ["b."]
    assert list(compressed.report.drift) == ["b."]
    assert {w.name for w in compressed.report.weights} >= {"a.weight_ih_l0", "a.weight_hh_l0"}
    (note,) = [line for line in compressed.report.notes if line.startswith("`a.weight_")]
    assert f"it also has {stranger}" in note and "drift" in note


def test_a_layer_of_zeros_has_no_drift(tmp_path):
    state = {f"lstm.{k}": torch.zeros_like(v) for k, v in nn.LSTM(5, 6).state_dict().items()}
    checkpoint = saved(state, tmp_path)
    drift = drift_over_time(checkpoint, compress(checkpoint, FULL))
    assert drift == {"lstm.": {str(step): 0.0 for step in STEPS}}


@pytest.mark.parametrize(
    ("inputs", "fact"),
    [
        (
            {"c.": torch.ones(1, 1, 5)},
            "no recurrent layer 'c.'. Inputs may be given for 'a.', 'b.'",
        ),
        ({"a.": torch.ones(1, 1, 6)}, r"must have the shape \(batch, time, 5\) .* got \(1, 1, 6\)"),
        ({"a.": torch.ones(4, 5)}, r"got \(4, 5\)"),
        ({"a.": torch.ones(1, 0, 5)}, r"at least one step, got \(1, 0, 5\)"),
    ],
)
def test_inputs_that_do_not_fit_are_told(checkpoint, inputs, fact):
    with pytest.raises(RecipeError, match=fact):
        drift_over_time(checkpoint, compress(checkpoint, RANK_ONE), inputs)


@pytest.mark.parametrize("kind", [nn.RNN, nn.RNNCell])
def test_what_an_rnn_is_made_of_is_taken_from_the_module(kind: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({"rnn": kind(5, 6, nonlinearity="relu")})
    checkpoint = saved(model.state_dict(), tmp_path)
    compressed = compress(checkpoint, RANK_ONE)
    inputs = {"rnn.": torch.randn(2, 10, 5)}
    drift = drift_over_time(checkpoint, compressed, inputs, like=model)["rnn."]

    def last(state_dict: dict[str, Tensor]) -> Tensor:
        layer = nn.RNN(5, 6, nonlinearity="relu", batch_first=True)
        own = {name.removeprefix("rnn."): tensor for name, tensor in state_dict.items()}
        names = own if kind is nn.RNN else {f"{name}_l0": tensor for name, tensor in own.items()}
        layer.load_state_dict(names)
        with torch.no_grad():
            output: Tensor = layer(inputs["rnn."])[0]
        return output[:, -1]

    before, after = last(model.state_dict()), last(compressed.state_dict())
    assert drift["10"] == pytest.approx(((after - before).norm() / before.norm()).item(), rel=1e-4)
    assert drift["10"] != drift_over_time(checkpoint, compressed, inputs)["rnn."]["10"]


def test_the_task_says_of_what_kind_an_rnn_is(tmp_path: Path) -> None:
    torch.manual_seed(0)
    symbols = sorted(set("a small boat sails over the quiet lake"))
    model = nn.ModuleDict(
        {
            "embedding": nn.Embedding(len(symbols), 4),
            "rnn": nn.RNN(4, 8, nonlinearity="relu"),
            "head": nn.Linear(8, len(symbols)),
        }
    )
    content = {"model": model.state_dict(), "vocab": {c: i for i, c in enumerate(symbols)}}
    torch.save(content, tmp_path / "model.pt")
    (tmp_path / "text.txt").write_text("a small boat sails over the quiet lake" * 40)
    task = {"name": "language-model", "text": str(tmp_path / "text.txt"), "batch": 2, "steps": 5}
    drifts = [
        compress(tmp_path / "model.pt", RANK_ONE | {"task": task | kind}).report.drift
        for kind in ({}, {"nonlinearity": "tanh"}, {"nonlinearity": "relu"})
    ]
    assert drifts[0] == drifts[1] != drifts[2]
