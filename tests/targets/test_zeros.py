"""Zeros of a weight are zeros in an exported file: the export compares it with the layer itself."""

from pathlib import Path

import pytest
import torch
from torch import nn

import ttcompress

pytest.importorskip("onnxruntime")


@pytest.mark.parametrize(
    "format, store", [("mps", "int3"), ("mpo", "int4"), ("mps", "coded"), ("mpo", "coded")]
)
def test_levels_at_zero_and_masks_are_exported(format: str, store: str, tmp_path: Path) -> None:
    state = nn.LSTM(8, 16).state_dict()
    state["weight_hh_l0"][[3, 40]] = state["weight_hh_l0"][:, 5] = 0.0
    state["weight_ih_l0"][torch.rand(64, 8, generator=torch.Generator().manual_seed(0)) < 0.5] = 0.0
    torch.save(state, tmp_path / "m.pt")
    modes = {"row_modes": [8, 8], "column_modes": [4, 4]}
    train = {"weights": "weight_hh_l0", "format": format, **modes}
    rules = [train, {"weights": "weight_ih_l0", "format": "dense"}]
    recipe = {"version": 1, "store": store, "rules": rules, "default": "keep"}
    model = ttcompress.compress(tmp_path / "m.pt", recipe | {"budget": {"rank": 5}})
    model.save(tmp_path / "m.safetensors")
    (made,) = ttcompress.export(tmp_path / "m.safetensors", output=tmp_path / "m.onnx")
    assert made.largest_difference < 1e-5
    assert made.holds["bool"] >= 64 + 16
