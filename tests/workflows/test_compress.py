"""The whole way: exact at full rank, honest about its error, within its budgets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ttcompress.artifact import CompressedModel, load
from ttcompress.checkpoint import open_checkpoint
from ttcompress.errors import DecompositionError, PlanError
from ttcompress.recipe import as_recipe, default_recipe
from ttcompress.workflows.compress import compress
from ttcompress.workflows.plan import plan

SAMPLES = Path(__file__).parents[2] / "sample_models"
every_sample = pytest.mark.parametrize("name", ["charlm", "highlighter"])
every_format = pytest.mark.parametrize("train_format", ["mps", "mpo"])


def recipe(train_format: str, store: str = "auto", **budget: Any) -> dict[str, Any]:
    return {"version": 1, "format": train_format, "store": store, "budget": budget}


def measured(sample: Path, model: CompressedModel) -> dict[str, float]:
    """Relative errors by numpy, from the source and the restored state dict in float64."""
    source, errors = open_checkpoint(sample), {}
    for stored in model.weights:
        before = source.tensor(stored.weight.name).double().numpy()
        after = stored.dense(torch.float64).numpy()
        errors[stored.weight.name] = np.linalg.norm(after - before) / np.linalg.norm(before)
    return errors


@every_sample
@every_format
def test_full_rank_restores_every_weight_to_rounding_error(name: str, train_format: str) -> None:
    sample = SAMPLES / f"{name}.pt"
    asked = recipe(train_format, "float32", tolerance=0)
    model = compress(sample, asked | {"default": "decompose"})
    source = open_checkpoint(sample)
    assert len(model.weights) == len(source.weights)
    state = model.state_dict()
    for weight in source.weights:
        before = source.tensor(weight.name)
        assert torch.allclose(state[weight.name], before, atol=1e-6 * float(before.abs().max()) * 8)
    assert max(measured(sample, model).values()) < 1e-6
    for other in source.others:
        assert torch.equal(state[other.name], source.tensor(other.name))


@every_sample
@every_format
def test_a_factor_of_8_is_met_within_1_percent_and_its_errors_are_true(
    name: str, train_format: str, tmp_path: Path
) -> None:
    sample = SAMPLES / f"{name}.pt"
    model = compress(sample, recipe(train_format, factor=8))
    assert 8 <= model.report.totals["weights"].compression_factor <= 8.08
    assert {weight.format for weight in model.report.weights} == {train_format}
    model.save(tmp_path / "small")
    errors = measured(sample, load(tmp_path / "small"))
    reported = {weight.name: weight.relative_error for weight in model.report.weights}
    assert reported == pytest.approx(errors, rel=1e-10)
    assert all(0.001 < error < 0.9 for error in errors.values())


@every_sample
def test_what_was_planned_is_what_is_done(name: str) -> None:
    sample = SAMPLES / f"{name}.pt"
    _, planned = plan(sample, recipe("mps", "int4", factor=12))
    model = compress(sample, recipe("mps", "int4", factor=12))
    stored = model.stored_tensors().values()
    in_file = sum(tensor.numel() * tensor.element_size() for tensor in stored)
    assert in_file == planned.model_totals.bytes_after
    assert model.report.totals["model"].bytes_after == in_file
    for weight, done in zip(planned.changed, model.report.weights, strict=True):
        assert done.relative_error == pytest.approx(weight.expected_error, rel=0.15)
        assert (done.ranks, done.store) == (weight.ranks, weight.store and weight.store.name)


@every_sample
def test_what_is_coded_takes_what_was_estimated_or_a_few_percent_more_or_less(name: str) -> None:
    sample = SAMPLES / f"{name}.pt"
    _, planned = plan(sample, recipe("mps", factor=12))
    model = compress(sample, recipe("mps", factor=12))
    for weight, done in zip(planned.changed, model.report.weights, strict=True):
        assert done.store == "coded" and weight.estimated is not None
        assert done.bytes_after == pytest.approx(weight.bytes, rel=0.05)
        # The bytes that the estimate leaves are spent on finer steps than were planned.
        assert done.relative_error == pytest.approx(weight.expected_error, rel=0.15)


@every_sample
def test_a_size_is_met_and_nearly_used_up(name: str, tmp_path: Path) -> None:
    path = tmp_path / "small"
    compress(SAMPLES / f"{name}.pt", recipe("mps", size=450_000)).save(path)
    assert 0.99 * 450_000 <= path.stat().st_size <= 450_000


@every_format
@pytest.mark.parametrize("store", ["auto", "int6"])
def test_a_tolerance_holds_as_measured(train_format: str, store: str) -> None:
    sample = SAMPLES / "highlighter.pt"
    model = compress(sample, recipe(train_format, store, tolerance=0.2))
    errors = measured(sample, model)
    assert max(errors.values()) <= 0.2
    kept = {entry.name for entry in model.report.kept}
    assert errors.keys() | kept >= {w.name for w in open_checkpoint(sample).weights}


def test_the_default_recipe_is_balanced(tiny_checkpoint: Path) -> None:
    assert as_recipe(None) == default_recipe() == as_recipe("balanced")
    assert as_recipe(as_recipe("mpo")) is not None
    written = tiny_checkpoint.parent / "mine.yaml"
    written.write_text("version: 1\nbudget: {factor: 4}\n", encoding="utf-8")
    assert as_recipe(written) == as_recipe({"version": 1, "budget": {"factor": 4}})


def test_progress_is_told_from_start_to_end(tiny_checkpoint: Path) -> None:
    told: list[tuple[str, int, int]] = []

    def progress(stage: str, done: int, total: int, detail: str = "") -> None:
        told.append((stage, done, total))

    compress(tiny_checkpoint, recipe("mps", rank=2), progress=progress)
    assert told == [(s, k, 4) for s in ("spectra", "decompose") for k in range(5)]


def test_a_size_out_of_reach_is_refused(tiny_checkpoint: Path) -> None:
    with pytest.raises(PlanError, match="size"):
        compress(tiny_checkpoint, recipe("mps", size=2_000))


def test_a_broken_weight_is_named(tmp_path: Path) -> None:
    state = torch.nn.LSTM(6, 8).state_dict()
    state["weight_hh_l0"][3, 3] = float("nan")
    torch.save(state, tmp_path / "broken.pt")
    with pytest.raises(DecompositionError, match="weight_hh_l0: 1 of 256 values are NaN"):
        compress(tmp_path / "broken.pt", recipe("mps", rank=2))
