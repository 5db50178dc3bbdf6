"""Compression of modules and state dicts in memory, with a loader's batches."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import ttcompress
from ttcompress.layers.recurrent import LSTM

FACTOR = {"version": 1, "format": "auto", "budget": {"factor": 6}}
VALUES = [(torch.ones(2, 5, 4), torch.zeros(2, 5, 1))]


class Forecaster(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(4, 32, 2, batch_first=True), nn.Linear(32, 1)

    def forward(self, x: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        out: torch.Tensor = self.head(self.rnn(x)[0]) * scale
        return out


@pytest.fixture
def model() -> Forecaster:
    torch.manual_seed(0)
    return Forecaster().eval()


@pytest.fixture
def loader() -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(0)
    scale = torch.tensor([1.0, 1.0, 0.01, 0.01])
    inputs = torch.randn(64, 20, 4, generator=generator) * scale
    return DataLoader(TensorDataset(inputs, torch.zeros(64, 1)), batch_size=8)


def loss(model: nn.Module, compressed: nn.Module, loader: DataLoader[Any]) -> float:
    with torch.no_grad():
        pairs = [(model(x), compressed(x)) for x, _ in loader]
    return sum(float((a - b).square().sum()) for a, b in pairs)


def test_a_module_is_compressed_and_stays_as_it_was(model: Forecaster) -> None:
    before = copy.deepcopy(model.state_dict())
    result = ttcompress.compress(model, {**FACTOR, "format": "mps"})
    made = result.module()
    assert isinstance(made.rnn, LSTM) and type(model.rnn) is nn.LSTM and not made.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    x = torch.randn(2, 9, 4)
    loaded = ttcompress.load_into(Forecaster().eval(), result)
    assert torch.equal(made(x), loaded(x))
    assert list(result.state_dict()) == list(before)
    assert result.report.totals["weights"].compression_factor >= 6


def test_a_file_and_the_module_in_it_give_the_same_tensors(
    model: Forecaster, tmp_path: Any
) -> None:
    torch.save(model.state_dict(), tmp_path / "model.pt")
    one, other = (ttcompress.compress(s, FACTOR) for s in (model, tmp_path / "model.pt"))
    tensors = other.stored_tensors()
    assert all(torch.equal(value, tensors[name]) for name, value in one.stored_tensors().items())


def test_batches_alone_calibrate(model: Forecaster, loader: DataLoader[Any]) -> None:
    blind = ttcompress.compress(model, FACTOR)
    seeing = ttcompress.compress(model, FACTOR, data=loader)
    assert blind.report.calibration is None and seeing.report.calibration is not None
    assert seeing.report.finetune is None
    worse, better = (loss(model, result.module(), loader) for result in (blind, seeing))
    assert better < 0.5 * worse


def test_the_result_shows_itself(model: Forecaster) -> None:
    result = ttcompress.compress(model, FACTOR)
    assert repr(result).startswith("CompressedModel: 6.") and "4 weights changed" in repr(result)
    assert "<table>" in result._repr_html_() and "multiply-adds" in result._repr_html_()


def test_a_saved_result_loads_without_its_module(model: Forecaster, tmp_path: Any) -> None:
    ttcompress.compress(model, FACTOR).save(tmp_path / "out.safetensors")
    with pytest.raises(ttcompress.ArtifactError, match="load_into"):
        ttcompress.load(tmp_path / "out.safetensors").module()


def test_other_workflows_take_a_module(model: Forecaster) -> None:
    assert len(ttcompress.inspect(model).layers) == 1
    assert ttcompress.plan(model, FACTOR)[1].weights_totals.compression_factor >= 6
    assert ttcompress.compare(model, [4.0], FACTOR).rows[0].factor == 4.0


def test_batches_need_the_module(model: Forecaster, loader: DataLoader[Any]) -> None:
    with pytest.raises(ttcompress.RecipeError, match="batches need a module"):
        ttcompress.compress(model.state_dict(), FACTOR, data=loader)


def test_an_empty_loader_is_refused(model: Forecaster) -> None:
    with pytest.raises(ttcompress.RecipeError, match="the list has no data to run"):
        ttcompress.compress(model, FACTOR, data=[])


def test_an_endless_loader_is_read_as_far_as_needed(model: Forecaster) -> None:
    def endless() -> Iterator[torch.Tensor]:
        while True:
            yield torch.randn(2, 10, 4)

    recipe = {**FACTOR, "calibration": {"batches": 3}}
    found = ttcompress.compress(model, recipe, data=endless()).report.calibration
    assert found is not None and found["positions"] == 3 * 2 * 10


@pytest.mark.parametrize(
    ("batch", "message"),
    [({"values": torch.ones(2, 3, 4)}, "needs x"), ((), "has 0 parts, but .* needs 1: x")],
)
def test_a_batch_that_forward_does_not_take(model: Forecaster, batch: Any, message: str) -> None:
    with pytest.raises(ttcompress.RecipeError, match=message):
        ttcompress.compress(model, FACTOR, data=[batch])


def test_named_and_bare_batches(model: Forecaster, loader: DataLoader[Any]) -> None:
    tuples = ttcompress.compress(model, FACTOR, data=loader).stored_tensors()
    for made in (({"x": x, "labels": y} for x, y in loader), (x for x, _ in loader)):
        found = ttcompress.compress(model, FACTOR, data=made).stored_tensors()
        assert all(torch.equal(value, found[name]) for name, value in tuples.items())


def test_a_module_is_swept_from_its_folder(model: Forecaster, tmp_path: Any) -> None:
    found = ttcompress.sweep(model, factors=[2, 4], formats=["mps"], folder=tmp_path / "points")
    assert [point.outcome.error for point in found.points] == ["", ""]
    made = sorted(path.name for path in (tmp_path / "points").iterdir())
    assert "Forecaster.pt" in made and "mps@4.safetensors" in made
    wanted = ttcompress.compress(model, {"version": 1, "format": "mps", "budget": {"factor": 4}})
    loaded = ttcompress.load(tmp_path / "points" / "mps@4.safetensors")
    assert loaded.report.totals["weights"].compression_factor >= 4
    assert list(loaded.state_dict()) == list(wanted.state_dict())


def test_limits_are_judged_by_a_task_object(model: Forecaster) -> None:
    task = ttcompress.task_of(model, valid=VALUES, loss="mse")
    limits = {"max_drop": "1000%", "max_size": "1kB"}
    with pytest.raises(ttcompress.RecipeError, match="only be judged with a task"):
        ttcompress.compress(model, {**FACTOR, "limits": limits})
    found = ttcompress.compress(model, {**FACTOR, "limits": limits}, task=task).report.limits
    assert {limit["name"]: limit["ok"] for limit in found} == {"max_size": False, "max_drop": True}


def test_a_size_counts_the_metrics_of_a_task_object(model: Forecaster) -> None:
    metrics: Any = {f"a metric with a long name, {k}": (nn.L1Loss(), False) for k in range(3)}
    task = ttcompress.task_of(model, valid=VALUES, loss="mse", metrics=metrics)
    for size in (20_000, 20_700, 21_400):
        made = ttcompress.compress(model, {"version": 1, "budget": {"size": size}}, task=task)
        assert made.file_bytes <= size


def test_a_model_in_memory_is_fine_tuned(model: Forecaster) -> None:
    batches = [torch.randn(8, 12, 4) for _ in range(20)]
    task = ttcompress.task_of(model, train=batches, valid=batches, predicts="values")
    small = {"version": 1, "format": "mps", "budget": {"factor": 16}, "store": "int4"}
    start = ttcompress.compress(model, small)
    settings = {"version": 1, "finetune": {"epochs": 2, "learning_rate": 1e-2}}
    tuned = ttcompress.finetune(start, settings, original=model, task=task)
    assert tuned.report.metrics is not None
    assert tuned.report.metrics["output_error"]["before"] == 0
    with torch.no_grad():
        x, wanted = batches[0], model(batches[0])
        gaps = [float((made.module()(x) - wanted).norm()) for made in (start, tuned)]
    assert gaps[1] < gaps[0]
    with pytest.raises(ttcompress.CheckpointError, match="not the model that the artifact"):
        ttcompress.finetune(start, settings, original=Forecaster(), task=task)


def test_without_a_task_a_limit_on_the_drop_is_a_number(model: Forecaster, tmp_path: Any) -> None:
    ttcompress.record(model, [torch.randn(8, 6, 4)] * 3, tmp_path / "x.safetensors")
    recipe = {**FACTOR, "finetune": {"max_steps": 2}}
    for limit, ok in ((1e9, True), (1e-9, False)):
        limited = {**recipe, "limits": {"max_drop": limit}}
        made = ttcompress.compress(model, limited, data=tmp_path / "x.safetensors")
        assert [found["ok"] for found in made.report.limits] == [ok]
    with pytest.raises(ttcompress.RecipeError, match="5% of the original's error is 0"):
        limited = {**recipe, "limits": {"max_drop": "5%"}}
        ttcompress.compress(model, limited, data=tmp_path / "x.safetensors")


def test_a_module_under_another_name_is_told_apart_by_its_prefix(
    model: Forecaster, tmp_path: Any
) -> None:
    class Lit(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = Forecaster()

        def forward(self, x: torch.Tensor) -> Any:
            return self.model(x)

    torch.save({"state_dict": Lit().state_dict()}, tmp_path / "lit.ckpt")
    made = ttcompress.compress(tmp_path / "lit.ckpt", {**FACTOR, "format": "mps"})
    task = ttcompress.task_of(model, train=VALUES, valid=VALUES, loss="mse")
    calibrated = {**FACTOR, "calibration": {"batches": 1}}
    inner = "all names begin with `model.`: give a module that holds this one as `model`"
    with pytest.raises(ttcompress.ArtifactError, match=inner):
        ttcompress.load_into(Forecaster(), made)
    for recipe in (FACTOR, calibrated):
        with pytest.raises(ttcompress.RecipeError, match=inner):
            ttcompress.compress(tmp_path / "lit.ckpt", recipe, task=task)
    ttcompress.load_into(Lit(), made)
    with pytest.raises(ttcompress.ArtifactError, match="has compressed layers already"):
        ttcompress.load_into(ttcompress.load_into(Lit(), made), made)
    with pytest.raises(ttcompress.ArtifactError, match=r"no name begins with `model\.`"):
        ttcompress.load_into(Lit(), ttcompress.compress(model, FACTOR))
