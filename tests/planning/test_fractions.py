"""One budget over all weights against the same fraction of each, on real and synthetic weights."""

from __future__ import annotations

from math import prod
from pathlib import Path

import pytest
import torch

from ttcompress.checkpoint import open_checkpoint
from ttcompress.planning.allocation import Allowance, allocate
from ttcompress.planning.candidates import Option
from ttcompress.planning.formats import MpsLayout
from ttcompress.stores import STORES, Store
from ttcompress.trains.tt_svd import spectrum_at

SAMPLES = Path(__file__).parents[2] / "sample_models"


def synthetic() -> dict[str, torch.Tensor]:
    """Eight shapes and decays, from flat noise to exact low rank."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    for k, (rows, columns) in enumerate([(96, 64), (64, 96), (128, 128), (200, 30)] * 2):
        noise = torch.randn(rows, columns, generator=generator)
        u, s, vt = torch.linalg.svd(noise, full_matrices=False)
        decay = torch.arange(1, len(s) + 1) ** (-0.3 * k)
        found[f"synthetic {k}"] = 10.0 ** (k % 3) * (u * (s * decay)) @ vt
    return found


def options_of(matrices: dict[str, torch.Tensor], store: Store) -> list[Option]:
    return [_option(matrix, store) for matrix in matrices.values()]


def _option(matrix: torch.Tensor, store: Store) -> Option:
    rows, columns = matrix.shape
    layout, spectrum = MpsLayout((rows,), (columns,)), spectrum_at(matrix, (rows, 1))
    return Option(layout, store, spectrum.energy, (spectrum,), (1,), layout.full_ranks)


def _rank_for(option: Option, limit: float) -> int:
    ranks = range(1, option.caps[0] + 1)
    return max((rank for rank in ranks if option.cost((rank,)).bytes <= limit), default=1)


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    found = synthetic()
    for name in ("charlm.pt", "highlighter.pt"):
        checkpoint = open_checkpoint(SAMPLES / name)
        for weight in checkpoint.weights:
            if weight.role == "recurrent":
                found[f"{name} {weight.name}"] = checkpoint.tensor(weight.name)
    return found


@pytest.mark.parametrize("store", ["float32", "int8", "int4"])
@pytest.mark.parametrize("factor", [6, 12, 24])
def test_sharing_one_budget_never_loses_more_than_equal_fractions(weights, store, factor):
    assert len(weights) == 20
    options = options_of(weights, STORES[store])
    equal = [(_rank_for(one, 4 * prod(one.layout.shape) / factor),) for one in options]
    spent = sum(one.cost(ranks).bytes for one, ranks in zip(options, equal, strict=True))
    lost = sum(one.error(ranks) for one, ranks in zip(options, equal, strict=True))
    choices = allocate([(one,) for one in options], Allowance(bytes=spent))
    assert choices is not None
    assert sum(choice.cost.bytes for choice in choices) <= spent
    assert sum(choice.error for choice in choices) <= lost
