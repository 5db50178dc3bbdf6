"""A plan is carried out: names, broken tensors, spectra, and threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ttcompress.errors import CheckpointError, DecompositionError
from ttcompress.model.report import SPECTRUM_POINTS
from ttcompress.system.threads import torch_threads
from ttcompress.workflows.compress import compress


def recipe(store: str = "auto", **budget: Any) -> dict[str, Any]:
    return {"version": 1, "format": "mps", "store": store, "budget": budget}


def lstm(**more: torch.Tensor) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return dict(torch.nn.LSTM(6, 8).state_dict()) | {
        name.replace("__", "."): tensor for name, tensor in more.items()
    }


RANKED = {"version": 1, "budget": {"rank": 2}, "store": "int4"}


@pytest.mark.parametrize("bias", [torch.zeros(3), torch.zeros(32, 1), torch.zeros(32).int()])
def test_a_bias_that_fits_no_layer_leaves_matrices_alone(
    bias: torch.Tensor, tmp_path: Path
) -> None:
    torch.save(lstm(bias_ih_l0=bias), tmp_path / "m")
    model = compress(tmp_path / "m", RANKED)
    assert not model.stacks and not model.report.drift
    assert any("bias_ih_l0 is not a vector of 32 floats" in note for note in model.report.notes)
    assert [weight.name for weight in model.report.weights] == ["weight_ih_l0", "weight_hh_l0"]


def test_a_tensor_whose_name_a_core_would_take(tmp_path: Path) -> None:
    torch.save(lstm(weight_ih_l0__cores__0__planes=torch.ones(3)), tmp_path / "m")
    fact = r"weight_ih_l0\.cores\.0\.planes: is a tensor of the model, but a core of weight_ih_l0"
    with pytest.raises(CheckpointError, match=fact):
        compress(tmp_path / "m", RANKED)


def test_the_name_that_safetensors_keeps_for_itself(tmp_path: Path) -> None:
    torch.save(lstm() | {"__metadata__": torch.ones(3)}, tmp_path / "m")
    with pytest.raises(CheckpointError, match="is named __metadata__, which safetensors reserves"):
        compress(tmp_path / "m", RANKED)


def test_kept_tensors_that_are_broken_are_told_of(tmp_path: Path) -> None:
    mask, statistics = torch.tensor([-torch.inf]), torch.tensor([torch.nan, 1.0])
    torch.save(lstm(mask=mask, mean=statistics.half()), tmp_path / "m")
    notes = compress(tmp_path / "m", RANKED).report.notes
    assert [note for note in notes if "NaN" in note] == ["mean holds NaN and is kept unchanged"]


def test_a_weight_that_overflows_its_store_is_named(tmp_path: Path) -> None:
    torch.save({"w": 1e6 * torch.randn(64, 24)}, tmp_path / "m")
    asked = {**recipe("float16", rank=4), "default": "decompose", "rules": [{"weights": "w"}]}
    with pytest.raises(DecompositionError, match="w: float16 cannot hold the value"):
        compress(tmp_path / "m", asked)


def test_a_drawn_spectrum_shows_both_sides_of_the_cut(tmp_path: Path) -> None:
    matrix = torch.randn(400, 300, generator=torch.Generator().manual_seed(7))
    torch.save({"w": matrix}, tmp_path / "m")
    rule = {"weights": "w", "row_modes": [400], "column_modes": [300], "ranks": [123]}
    asked = {"version": 1, "store": "float32", "rules": [rule], "default": "keep"}
    (weight,) = compress(tmp_path / "m", asked).report.weights
    (drawn,) = weight.spectrum
    assert (drawn.rank, drawn.indices[0], drawn.indices[-1]) == (123, 0, 299)
    assert {122, 123} <= set(drawn.indices)
    assert len(drawn.indices) <= SPECTRUM_POINTS
    truth = torch.linalg.svdvals(matrix.double())
    assert drawn.values == pytest.approx([float(truth[i]) for i in drawn.indices], rel=5e-3)


@pytest.mark.parametrize("store", ["coded", "int8"])
def test_the_file_is_the_same_whatever_the_number_of_threads(store: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = torch.nn.LSTM(24, 40, num_layers=2)
    for threads in (1, 3):
        with torch_threads(threads):
            compress(module, recipe(store, factor=8)).save(tmp_path / f"{threads}.safetensors")
            assert torch.get_num_threads() == threads
    one, three = (tmp_path / f"{threads}.safetensors" for threads in (1, 3))
    assert one.read_bytes() == three.read_bytes()
