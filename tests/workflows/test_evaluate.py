from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, weight_norm

from ttcompress.artifact import is_artifact
from ttcompress.checkpoint import open_checkpoint
from ttcompress.errors import CheckpointError, InputError, RecipeError, TTCompressError
from ttcompress.tasks.evaluation import load_model, measure_module
from ttcompress.tasks.protocol import Metric
from ttcompress.tasks.registry import task_for
from ttcompress.workflows.compress import compress
from ttcompress.workflows.evaluate import evaluate, metrics_before_after, open_model

WORDS = "the cat sat on the mat "
VOCABULARY = {symbol: k for k, symbol in enumerate(sorted(set(WORDS)))}
RECIPE = {"version": 1, "store": "float32", "budget": {"rank": 1}}


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A model that knows the words by heart, so that cutting its ranks must cost something."""
    torch.manual_seed(0)
    users = nn.ModuleDict({"e": nn.Embedding(10, 8), "r": nn.LSTM(8, 16), "d": nn.Linear(16, 10)})
    assert len(VOCABULARY) == 10
    inputs = torch.tensor([VOCABULARY[symbol] for symbol in WORDS * 4])[:, None]
    optimizer = torch.optim.Adam(users.parameters(), 0.02)
    for _ in range(80):
        logits = users["d"](users["r"](users["e"](inputs[:-1]))[0])
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(logits[:, 0], inputs[1:, 0]))
        optimizer.step()
    path = tmp_path / "model.pt"
    torch.save({"state_dict": users.state_dict(), "vocab": VOCABULARY, "x": torch.ones(2)}, path)
    (tmp_path / "text").write_text(WORDS * 40)
    return path


@pytest.fixture
def options(trained: Path) -> dict[str, str]:
    return {"text": str(trained.parent / "text")}


class Fixed:
    """A task whose metrics are told by the test."""

    name = "fixed"
    metrics = (Metric("score", True), Metric("loss", False))

    def __init__(self, *found: dict[str, float]) -> None:
        self.found = list(found)

    def build(self) -> nn.Module:
        return nn.ModuleDict(
            {"e": nn.Embedding(10, 8), "r": nn.LSTM(8, 16), "d": nn.Linear(16, 10)}
        )

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        return self.found.pop(0)


def test_a_path_a_checkpoint_and_an_artifact_of_full_rank_measure_the_same(trained, options):
    full = compress(trained, {"version": 1, "store": "float32", "budget": {"tolerance": 0}})
    full.save(trained.parent / "full.safetensors")
    models = [trained, str(trained), open_checkpoint(trained), full]
    models += [trained.parent / "full.safetensors"]
    figures = [evaluate(model, "language-model", options) for model in models]
    assert list(figures[0]) == ["bits_per_character", "perplexity"]
    assert figures[0]["bits_per_character"] < 0.5
    for found in figures:
        assert found == pytest.approx(figures[0], rel=1e-5)


def test_before_and_after_are_those_of_the_two_models(trained, options):
    checkpoint, compressed = open_checkpoint(trained), compress(trained, RECIPE)
    told = metrics_before_after(checkpoint, compressed, "language-model", options)
    before = evaluate(checkpoint, "language-model", options)
    after = evaluate(compressed, "language-model", options)
    assert list(told) == list(before)
    for name, metric in told.items():
        assert metric == {
            "before": before[name],
            "after": after[name],
            "drop": after[name] - before[name],
            "higher_is_better": False,
        }
        assert metric["drop"] > 0.1


def test_a_drop_is_a_loss_in_either_direction(trained):
    checkpoint, compressed = open_checkpoint(trained), compress(trained, RECIPE)
    task = Fixed({"score": 0.9, "loss": 2.0}, {"loss": 1.5, "score": 0.8})
    told = metrics_before_after(checkpoint, compressed, task)
    assert list(told) == ["score", "loss"]
    assert told["score"]["drop"] == pytest.approx(0.1)
    assert told["loss"]["drop"] == pytest.approx(-0.5)


def test_progress_is_told(trained):
    calls: list[tuple[str, int, int]] = []
    task = Fixed(*[{"score": 0.9, "loss": 2.0}] * 3)
    evaluate(trained, task, progress=lambda *call: calls.append(call[:3]))
    checkpoint, compressed = open_checkpoint(trained), compress(trained, RECIPE)
    metrics_before_after(
        checkpoint, compressed, task, progress=lambda *call: calls.append(call[:3])
    )
    assert calls == [("evaluate", done, total) for total in (1, 2) for done in range(total + 1)]


def test_the_state_dict_has_nothing_from_beside_it(trained):
    checkpoint = open_checkpoint(trained)
    full = compress(trained, {"version": 1, "store": "float32", "budget": {"tolerance": 0}})
    truth = torch.load(trained)["state_dict"]
    for model in (checkpoint, full):
        found = model.state_dict()
        assert list(found) == list(truth)
        for name, tensor in truth.items():
            torch.testing.assert_close(found[name], tensor)


def test_a_task_may_build_a_model_under_weight_norm(trained):
    class Normed(Fixed):
        def build(self) -> nn.Module:
            model = super().build()
            parametrizations.weight_norm(model["r"], "weight_hh_l0")
            weight_norm(model["d"])
            return model

    with pytest.warns(FutureWarning, match="weight_norm"):
        model = load_model(Normed(), open_checkpoint(trained))
    truth = torch.load(trained)["state_dict"]
    assert torch.equal(model["r"].weight_hh_l0, truth["r.weight_hh_l0"])
    assert torch.equal(model["d"].weight, truth["d.weight"])


def test_a_task_whose_model_has_other_tensors_is_told(trained):
    class Other(Fixed):
        def build(self) -> nn.Module:
            layers = {"e": nn.Embedding(9, 8), "r": nn.LSTM(8, 16), "s": nn.Linear(1, 1, False)}
            return nn.ModuleDict(layers)

    with pytest.raises(RecipeError) as caught:
        load_model(Other(), open_checkpoint(trained))
    assert (
        "e.weight is 10 x 8 in the file but 9 x 8 in the task's model; "
        "d.weight is only in the file; d.bias is only in the file; "
        "s.weight is only in the task's model."
    ) in str(caught.value)


@pytest.mark.parametrize("found", [{}, {"score": 1.0}, {"score": 1.0, "loss": 1.0, "other": 1.0}])
def test_a_task_keeps_to_the_metrics_it_named(found):
    with pytest.raises(RecipeError, match="but the task's metrics are score, loss"):
        measure_module(Fixed(found), nn.Linear(1, 1))


def test_the_counting_metric_comes_first_however_a_task_returns_them():
    found = measure_module(Fixed({"loss": 2, "score": 1}), nn.Linear(1, 1))
    assert list(found.items()) == [("score", 1.0), ("loss", 2.0)]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_metric_that_is_no_number_is_told(value):
    with pytest.raises(TTCompressError, match=r"task fixed: loss is (nan|inf)") as caught:
        measure_module(Fixed({"score": 1.0, "loss": value}), nn.Linear(1, 1))
    assert caught.value.exit_code == 1


def test_the_users_model_is_measured_without_dropout_and_left_as_it_was():
    class Looking(Fixed):
        def evaluate(self, model: nn.Module) -> dict[str, float]:
            assert not model.training
            assert not torch.is_grad_enabled()
            return super().evaluate(model)

    model = nn.Linear(1, 1).train()
    measure_module(Looking({"score": 1.0, "loss": 1.0}), model)
    assert model.training


def test_options_beside_a_task_that_is_built_are_an_error(trained):
    with pytest.raises(RecipeError, match="is already built and cannot take the options batch"):
        task_for(open_checkpoint(trained), Fixed(), {"batch": 3})


def test_what_a_file_is_decides_how_it_is_opened(trained, tmp_path):
    compress(trained, RECIPE).save(tmp_path / "small")
    assert is_artifact(tmp_path / "small")
    assert not is_artifact(trained)
    assert not is_artifact(tmp_path / "absent")
    assert not is_artifact(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        open_model(tmp_path / "absent")
    with pytest.raises(CheckpointError):
        open_model(tmp_path / "text")
