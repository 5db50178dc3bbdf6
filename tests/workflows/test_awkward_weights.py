"""Awkward weights in every store, the whole way, held against tensorly, plain sums and repeats."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import ttcompress
from ttcompress.stores import STORES


def normal(rows: int, columns: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows + columns))


def awkward() -> dict[str, Tensor]:
    q, _ = torch.linalg.qr(normal(48, 32).double())
    spread = (
        q @ torch.diag(torch.logspace(0, -12, 32, dtype=torch.float64)) @ normal(32, 32).double()
    )
    weights = {
        "plain.weight": normal(48, 32),
        "half.weight": normal(48, 32).half(),
        "brain.weight": normal(48, 32).bfloat16(),
        "ill_conditioned.weight": spread.float(),
        "rank_deficient.weight": normal(48, 3) @ normal(3, 32),
        "zero.weight": torch.zeros(48, 32),
        "tiny.weight": 1e-30 * normal(48, 32),
        "huge.weight": 1e30 * normal(48, 32),
        "row.weight": normal(1, 40),
        "column.weight": normal(40, 1),
        "one.weight": normal(1, 1),
        "prime.weight": normal(47, 31),
    }
    return weights | {
        name.replace("weight", "bias"): torch.ones(len(one)) for name, one in weights.items()
    }


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("numbers") / "awkward.pt"
    torch.save(awkward(), path)
    return path


def recipe(store: str) -> dict[str, object]:
    holds = store not in ("float16",)  # 1e30 is beyond it
    rules = [{"weights": "huge.weight", "format": "keep"}] if not holds else []
    return {
        "version": 1,
        "store": store,
        "budget": {"rank": 12},
        "rules": rules,
        "default": "decompose",
    }


@pytest.mark.parametrize("store", STORES)
def test_awkward_weights_are_what_the_report_says(store, source, tmp_path) -> None:
    path = tmp_path / "out.safetensors"
    ttcompress.compress(source, recipe(store)).save(path)
    checked = ttcompress.verify(path, source)
    assert checked.agrees, checked.differences
    report, stored = ttcompress.load(path).report, load_file(path)
    for weight in report.weights:
        parts = [t for key, t in stored.items() if key.startswith(f"{weight.name}.")]
        assert sum(part.numel() * part.element_size() for part in parts) == weight.bytes_after, (
            weight.name
        )
        if store.startswith(("int", "coded")) or weight.format == "dense":
            continue
        assert sum(part.numel() for part in parts) == weight.params_after, weight.name
    restored = ttcompress.load(path).state_dict()
    for name, tensor in awkward().items():
        assert restored[name].dtype == tensor.dtype and restored[name].shape == tensor.shape
        assert bool(restored[name].isfinite().all())
    assert not restored["zero.weight"].any()
    if store == "float32":
        errors = {weight.name: weight.relative_error for weight in report.weights}
        assert errors["rank_deficient.weight"] < 1e-5


AGAIN = """
import sys, torch, ttcompress
torch.set_num_threads(2)
for format in ("mps", "mpo"):
    recipe = {"version": 1, "format": format, "budget": {"factor": 3}, "default": "decompose"}
    ttcompress.compress(sys.argv[1], recipe).save(f"{format}.again")
"""


@pytest.mark.slow
def test_the_same_bytes_on_repeat_and_with_any_number_of_threads(source, tmp_path) -> None:
    """Small weights: sums of large ones are split over threads, and may end in another bit."""
    assert torch.get_num_threads() == 1
    patient = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}  # threads that spin starve each other
    again = [sys.executable, "-c", AGAIN, source]
    subprocess.run(again, cwd=tmp_path, env=patient, check=True)
    for format in ("mps", "mpo"):
        recipe = {"version": 1, "format": format, "budget": {"factor": 3}, "default": "decompose"}
        for name in ("first", "second"):
            ttcompress.compress(source, recipe).save(tmp_path / f"{format}.{name}")
        made = [(tmp_path / f"{format}.{k}").read_bytes() for k in ("first", "second", "again")]
        assert made[0] == made[1] == made[2]


def test_values_beyond_a_store_are_named(source) -> None:
    wanted = {"version": 1, "store": "float16", "budget": {"rank": 12}, "default": "decompose"}
    with pytest.raises(ttcompress.TTCompressError, match="float16 cannot hold"):
        ttcompress.compress(source, wanted)
