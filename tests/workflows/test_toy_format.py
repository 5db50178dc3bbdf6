"""A format that the package does not know is two short files and a line in each registry.

The toy in `tests/toys` goes all the way: recipe, plan, artifact, report, verify, restore, layers.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from kron_layout import KronLayout
from kron_train import KronTrain
from torch import Tensor, nn
from typer.testing import CliRunner

import ttcompress
from ttcompress.cli import app
from ttcompress.planning.formats import FORMATS
from ttcompress.trains.formats import TRAINS

MODES = {"row_modes": [1, 11], "column_modes": [2, 3], "ranks": [2]}
RECIPE: dict[str, Any] = {
    "version": 1,
    "budget": {"factor": 2},
    "store": "int8",
    "rules": [
        {"weights": "recurrent", "format": "kron"},
        {"weights": "embedding", "format": "kron", "store": "float32", **MODES},
    ],
    "default": "keep",
}


@pytest.fixture
def kron(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMATS, "kron", KronLayout)
    monkeypatch.setitem(TRAINS, "kron", KronTrain)


@pytest.fixture
def artifact(kron: None, tiny_checkpoint: Path, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.kron.safetensors"
    ttcompress.compress(tiny_checkpoint, RECIPE).save(path)
    return path


class Model(nn.Module):
    """The one that `tiny_checkpoint` was saved from."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.lstm = nn.LSTM(6, 8, num_layers=2)
        self.head = nn.Linear(8, 11)

    def forward(self, symbols: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.lstm(self.embedding(symbols))[0])
        return outputs


@pytest.mark.usefixtures("kron")
def test_the_plan_is_what_is_made(tiny_checkpoint: Path, artifact: Path) -> None:
    plan, report = ttcompress.plan(tiny_checkpoint, RECIPE)[1], ttcompress.load(artifact).report
    planned = [(p.weight.name, p.ranks, p.bytes, p.multiply_adds) for p in plan.changed]
    assert planned == [
        (one.name, one.ranks, one.bytes_after, one.multiply_adds_after) for one in report.weights
    ]
    assert {one.format for one in report.weights} == {"kron"}
    assert report.totals["weights"].compression_factor >= 2
    assert all(0 < one.relative_error < 1 for one in report.weights)
    assert all(len(one.spectrum) == 1 for one in report.weights)


def test_it_is_reported(artifact: Path) -> None:
    shown = CliRunner().invoke(app, ["report", str(artifact)])
    assert shown.exit_code == 0
    assert shown.stdout.count("kron ") >= 5


def test_its_errors_are_verified(artifact: Path, tiny_checkpoint: Path) -> None:
    verification = ttcompress.verify(artifact, tiny_checkpoint)
    assert verification.agrees
    assert len(verification.weights) == 5


def test_it_is_restored_and_loaded_into_its_module(
    artifact: Path, tiny_state_dict: OrderedDict[str, Tensor], tmp_path: Path
) -> None:
    dense, model = Model(), Model()
    ttcompress.restore(artifact, tmp_path / "dense.pt")
    dense.load_state_dict(torch.load(tmp_path / "dense.pt"))
    assert not torch.equal(dense.lstm.weight_hh_l0, tiny_state_dict["lstm.weight_hh_l0"])
    model = ttcompress.load_into(model, artifact).eval()
    cores = {name for name in model.state_dict() if "weight_hh_l0" in name}
    assert cores == {"lstm.weight_hh_l0.cores.0", "lstm.weight_hh_l0.cores.1"}
    symbols = torch.arange(11).reshape(11, 1) % 11
    with torch.no_grad():
        for run in ("factored", "rebuilt"):
            model.lstm.run = model.embedding.run = run
            torch.testing.assert_close(model(symbols), dense(symbols), rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("kron")
def test_a_recipe_s_modes_are_held_against_it(tiny_checkpoint: Path) -> None:
    rule = {"weights": "recurrent", "format": "kron", "row_modes": [32], "column_modes": [2, 4]}
    with pytest.raises(ttcompress.RecipeError, match="a kron has two row modes and two column"):
        ttcompress.plan(tiny_checkpoint, RECIPE | {"rules": [rule]})


def test_where_it_is_not_registered_nothing_knows_it(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(FORMATS, "kron")
    with pytest.raises(ttcompress.RecipeError, match="expected one of mps, mpo, auto, dense, keep"):
        ttcompress.recipe_from(RECIPE)
    with pytest.raises(ttcompress.ArtifactError, match="a train cannot be of format 'kron'"):
        ttcompress.load(artifact)
