"""What is stored is what was planned, its error is what is measured, and nothing is done twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from ttcompress.errors import DecompositionError
from ttcompress.model.report import Errors
from ttcompress.model.weights import Weight
from ttcompress.planning.formats import DenseLayout, Layout, MpoLayout, MpsLayout
from ttcompress.planning.plan import PlannedWeight
from ttcompress.stores import STORES
from ttcompress.trains.analysis import Analysis
from ttcompress.trains.stored import StoredWeight, measure_errors, store_weight

LAYOUTS = [
    MpsLayout((64,), (24,)),
    MpsLayout((4, 16), (4, 6)),
    MpoLayout((4, 16), (4, 6)),
    DenseLayout((64,), (24,)),
]


def weight(matrix: Tensor, gates: int = 4) -> Weight:
    dtype = str(matrix.dtype).removeprefix("torch.")
    return Weight("w", ("w",), "recurrent", tuple(matrix.shape), dtype, gates)


def normal(*shape: int, seed: int = 7) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def stored_and_measured(
    matrix: Tensor, layout: Layout, store: str, ranks: tuple[int, ...] | None = None
) -> tuple[StoredWeight, Errors]:
    found = ranks or layout.attainable([5] * (layout.cores - 1))
    stored, _ = store_weight(matrix, weight(matrix), layout, found, STORES[store])
    errors = measure_errors(matrix, stored.blocks(), weight(matrix))
    largest = (stored.dense(torch.float64) - matrix.double()).abs().max() / matrix.abs().max()
    assert errors.worst_element_error == pytest.approx(largest.item(), rel=1e-6)
    return stored, errors


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("store", ["float32", "float16", "bfloat16", "int8", "int3"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_the_error_is_the_one_of_what_is_stored(
    layout: Layout, store: str, dtype: torch.dtype
) -> None:
    matrix = normal(64, 24).to(dtype)
    stored, errors = stored_and_measured(matrix, layout, store)
    before = matrix.double().numpy()
    after = stored.dense(torch.float64).numpy()
    wanted = np.linalg.norm(after - before) / np.linalg.norm(before)
    assert errors.relative_error == pytest.approx(wanted, rel=1e-12)
    rows = np.linalg.norm(after - before, axis=1) / np.linalg.norm(before, axis=1)
    assert errors.worst_row_error == pytest.approx(rows.max(), rel=1e-12)
    blocks = zip(np.split(after, 4), np.split(before, 4), strict=True)
    gates = [np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in blocks]
    assert errors.gate_errors == pytest.approx(gates, rel=1e-12)
    assert stored.dense().dtype == dtype


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_what_is_stored_is_as_large_as_planned(layout: Layout) -> None:
    ranks = layout.attainable([5] * (layout.cores - 1))
    stored, *_ = stored_and_measured(normal(64, 24), layout, "int4", ranks)
    planned = PlannedWeight(stored.weight, layout, ranks, STORES["int4"])
    assert sum(part.bytes for part in stored.parts) == planned.bytes
    assert stored.train().params == planned.params
    assert stored.train().ranks == ranks


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_full_rank_in_float32_restores_to_rounding_error(layout: Layout) -> None:
    matrix = normal(64, 24)
    stored, errors = stored_and_measured(matrix, layout, "float32", layout.full_ranks)
    assert errors.relative_error < 1e-6
    assert torch.allclose(stored.dense(), matrix, atol=1e-5)


def test_dense_in_float32_is_the_matrix_itself() -> None:
    stored, errors = stored_and_measured(normal(64, 24), LAYOUTS[3], "float32")
    assert torch.equal(stored.dense(), normal(64, 24))
    assert errors.relative_error == errors.worst_row_error == 0.0
    assert torch.equal(stored.train().to_dense(), normal(64, 24))


def test_gates_of_zeros() -> None:
    matrix = torch.cat([torch.zeros(16, 24), normal(48, 24)])
    errors = measure_errors(matrix, [matrix.double()], weight(matrix))
    assert errors == Errors(0.0, (0.0, 0.0, 0.0, 0.0), 0.0, 0.0)
    errors = measure_errors(matrix, [matrix.double() + 1], weight(matrix))
    assert errors.gate_errors[0] == float("inf") and errors.gate_errors[1] < 10
    assert errors.worst_row_error == float("inf")
    errors = measure_errors(matrix, [matrix.double()], weight(matrix, gates=1))
    assert errors == Errors(0.0, (), 0.0, 0.0)


def test_the_worst_element_is_found_in_any_block_and_of_either_sign() -> None:
    matrix = normal(64, 24)
    largest = matrix.abs().max().item()
    for row, change in ((0, 0.5), (63, -0.75)):
        stored = matrix.double()
        stored[row, 3] += change * largest
        blocks = stored.split(10)
        errors = measure_errors(matrix, blocks, weight(matrix))
        assert errors.worst_element_error == pytest.approx(abs(change))


def test_no_error_is_finite_in_a_matrix_of_zeros() -> None:
    zeros = torch.zeros(64, 24)
    assert measure_errors(zeros, [zeros.double()], weight(zeros)) == Errors(
        0.0, (0.0,) * 4, 0.0, 0.0
    )
    errors = measure_errors(zeros, [zeros.double() + 1e-9], weight(zeros))
    assert errors.worst_element_error == float("inf")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_weight_that_is_no_number_is_named(value: float) -> None:
    matrix = normal(64, 24)
    matrix[3, 4] = matrix[5, 6] = value
    with pytest.raises(DecompositionError, match="w: 2 of 1536 values are NaN or infinite"):
        Analysis({"w": matrix}.__getitem__, [weight(matrix)]).matrix(weight(matrix))


def test_spectra_are_measured_at_the_cuts_asked_for_and_told() -> None:
    matrix, told = normal(64, 24), []

    def progress(stage: str, done: int, total: int, detail: str = "") -> None:
        told.append((stage, done, total, detail))

    analysis = Analysis({"w": matrix}.__getitem__, [weight(matrix)])
    found = analysis.spectra({weight(matrix): ((64, 1), (4, 4))}, progress=progress)
    assert list(found["w"]) == [(64, 1), (4, 4)]
    truth = np.linalg.svd(matrix.double().numpy(), compute_uv=False)
    assert np.allclose(found["w"][(64, 1)].values, truth, rtol=1e-6)
    assert told == [("spectra", 0, 1, "w"), ("spectra", 1, 1, "")]


class Counting:
    """Gives matrices, and counts how often and with how much memory in use."""

    def __init__(self, matrices: dict[str, Tensor], living: Callable[[], int]) -> None:
        self.matrices, self.living, self.counts = matrices, living, list[int]()

    def __call__(self, name: str) -> Tensor:
        self.counts.append(self.living())
        return self.matrices[name].clone()


@pytest.mark.parametrize("small", [True, False])
def test_each_weight_is_read_and_factorized_once_within_bounds_of_memory(
    small: bool, living: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large model's matrices are read again, but no more than half of it is ever kept."""
    if not small:
        monkeypatch.setattr("ttcompress.trains.analysis.SMALL", 0)
    matrices = {name: normal(256, 128, seed=k) for k, name in enumerate("abcd")}
    weights = [Weight(n, (n,), "recurrent", (256, 128), "float32", 4) for n in matrices]
    source = Counting(matrices, living)
    analysis, layout = Analysis(source, weights), MpsLayout((256,), (128,))
    before = living()
    for _ in range(2):
        analysis.spectra(dict.fromkeys(weights, ((256, 1),)))
    kept = [analysis.factorizations(one, None) for one in weights]
    for one, known in zip(weights, kept, strict=True):
        matrix = analysis.matrix(one)
        again, _ = store_weight(matrix, one, layout, (4,), STORES["int8"], known=known)
        alone, _ = store_weight(matrix, one, layout, (4,), STORES["int8"])
        assert torch.equal(again.dense(), alone.dense())
    assert len(source.counts) == (4 if small else 8)
    assert [bool(known) for known in kept] == ([True] * 4 if small else [True, True, False, False])
    total = sum(one.bytes for one in weights)
    assert max(source.counts) - before < (2 * total if small else total)


def test_a_small_row_counts_where_it_is_an_output_but_not_in_a_table() -> None:
    matrix = torch.ones(64, 24)
    matrix[3] = 1e-3
    stored = matrix.double()
    stored[3] += 1e-3
    linear = weight(matrix, gates=1)
    table = replace(linear, role="embedding")
    assert measure_errors(matrix, [stored], linear).worst_row_error == pytest.approx(1.0)
    assert measure_errors(matrix, [stored], table).worst_row_error < 2e-3
    matrix[3] = stored[3] = 1e-9  # what float32 leaves of a zero
    stored[3] += 1e-8
    assert measure_errors(matrix, [stored], linear).worst_row_error < 0.5
