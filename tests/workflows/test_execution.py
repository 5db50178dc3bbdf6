"""Executing plans: what is stored is what was planned, and its error is what is measured."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor

from ttcompress.errors import DecompositionError
from ttcompress.model.report import SPECTRUM_POINTS, Measured
from ttcompress.model.weights import Weight
from ttcompress.planning.formats import DenseLayout, Layout, MpoLayout, MpsLayout
from ttcompress.planning.plan import Plan, PlannedWeight
from ttcompress.stores.store import STORES
from ttcompress.trains.stored import StoredWeight, relative_errors
from ttcompress.workflows.execution import decompose_weights, finite_matrix, measure_spectra

LAYOUTS = [
    MpsLayout((64,), (24,)),
    MpsLayout((4, 16), (4, 6)),
    MpoLayout((4, 16), (4, 6)),
    DenseLayout((64,), (24,)),
]


class Tensors:
    """A source made of a mapping."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = tensors

    def tensor(self, name: str) -> Tensor:
        return self.tensors[name]


def weight(matrix: Tensor, gates: int = 4) -> Weight:
    dtype = str(matrix.dtype).removeprefix("torch.")
    return Weight("w", ("w",), "recurrent", tuple(matrix.shape), dtype, gates)


def normal(*shape: int, seed: int = 7) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def executed(
    matrix: Tensor, layout: Layout, store: str, ranks: tuple[int, ...] | None = None
) -> tuple[StoredWeight, Measured]:
    found = ranks or layout.attainable([5] * (layout.cores - 1))
    planned = PlannedWeight(weight(matrix), layout, found, STORES[store])
    return next(decompose_weights(Tensors({"w": matrix}), Plan((planned,), (), False)))


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("store", ["float32", "float16", "bfloat16", "int8", "int3"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_the_error_is_the_one_of_what_is_stored(
    layout: Layout, store: str, dtype: torch.dtype
) -> None:
    matrix = normal(64, 24).to(dtype)
    stored, measured = executed(matrix, layout, store)
    before = matrix.double().numpy()
    after = stored.dense(torch.float64).numpy()
    wanted = np.linalg.norm(after - before) / np.linalg.norm(before)
    assert measured.relative_error == pytest.approx(wanted, rel=1e-12)
    blocks = zip(np.split(after, 4), np.split(before, 4), strict=True)
    gates = [np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in blocks]
    assert measured.gate_errors == pytest.approx(gates, rel=1e-12)
    assert stored.dense().dtype == dtype


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_what_is_stored_is_as_large_as_planned(layout: Layout) -> None:
    ranks = layout.attainable([5] * (layout.cores - 1))
    stored, _ = executed(normal(64, 24), layout, "int4", ranks)
    planned = PlannedWeight(stored.weight, layout, ranks, STORES["int4"])
    assert sum(part.bytes for part in stored.parts) == planned.bytes
    assert stored.train().params == planned.params
    assert stored.train().ranks == ranks


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_full_rank_in_float32_restores_to_rounding_error(layout: Layout) -> None:
    matrix = normal(64, 24)
    stored, measured = executed(matrix, layout, "float32", layout.full_ranks)
    assert measured.relative_error < 1e-6
    assert torch.allclose(stored.dense(), matrix, atol=1e-5)


def test_dense_in_float32_is_the_matrix_itself() -> None:
    stored, measured = executed(normal(64, 24), LAYOUTS[3], "float32")
    assert torch.equal(stored.dense(), normal(64, 24))
    assert (measured.relative_error, measured.spectrum) == (0.0, ())
    assert torch.equal(stored.train().to_dense(), normal(64, 24))


def test_a_drawn_spectrum_shows_both_sides_of_the_cut() -> None:
    matrix = normal(400, 300)
    _, measured = executed(matrix, MpsLayout((400,), (300,)), "float32", (123,))
    (drawn,) = measured.spectrum
    assert (drawn.rank, drawn.indices[0], drawn.indices[-1]) == (123, 0, 299)
    assert {122, 123} <= set(drawn.indices)
    assert len(drawn.indices) <= SPECTRUM_POINTS
    truth = torch.linalg.svdvals(matrix.double())
    wanted = [float(truth[index]) for index in drawn.indices]
    assert drawn.values == pytest.approx(wanted, rel=5e-3)


def test_gates_of_zeros() -> None:
    matrix = torch.cat([torch.zeros(16, 24), normal(48, 24)])
    _, gates = relative_errors(matrix, [matrix.double()], weight(matrix))
    assert gates == (0.0, 0.0, 0.0, 0.0)
    _, gates = relative_errors(matrix, [matrix.double() + 1], weight(matrix))
    assert gates[0] == float("inf") and gates[1] < 10
    whole, gates = relative_errors(matrix, [matrix.double()], weight(matrix, gates=1))
    assert (whole, gates) == (0.0, ())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_weight_that_is_no_number_is_named(value: float) -> None:
    matrix = normal(64, 24)
    matrix[3, 4] = matrix[5, 6] = value
    with pytest.raises(DecompositionError, match="w: 2 of 1536 values are NaN or infinite"):
        finite_matrix(Tensors({"w": matrix}), weight(matrix))


def test_a_weight_that_overflows_its_store_is_named() -> None:
    with pytest.raises(DecompositionError, match="w: float16 cannot hold the value"):
        executed(1e6 * normal(64, 24), LAYOUTS[0], "float16")


def test_spectra_are_measured_at_the_cuts_asked_for_and_told() -> None:
    matrix, told = normal(64, 24), []
    cuts = {"w": ((64, 1), (4, 4))}

    def progress(stage: str, done: int, total: int, detail: str = "") -> None:
        told.append((stage, done, total, detail))

    found = measure_spectra(Tensors({"w": matrix}), {"w": weight(matrix)}, cuts, progress=progress)
    assert list(found["w"]) == [(64, 1), (4, 4)]
    truth = np.linalg.svd(matrix.double().numpy(), compute_uv=False)
    assert np.allclose(found["w"][(64, 1)].values, truth, rtol=1e-6)
    assert told == [("spectra", 0, 1, "w"), ("spectra", 1, 1, "")]


def test_one_weight_is_in_memory_at_a_time(living):
    counts = []

    class Counting(Tensors):
        def tensor(self, name: str) -> Tensor:
            counts.append(living())
            return super().tensor(name).clone()

    matrices = {name: normal(256, 128, seed=k) for k, name in enumerate("abc")}
    weights = {n: Weight(n, (n,), "recurrent", (256, 128), "float32", 4) for n in matrices}
    source, layout = Counting(matrices), MpsLayout((256,), (128,))
    measure_spectra(source, weights, dict.fromkeys(weights, ((256, 1),)))
    planned = [PlannedWeight(w, layout, (4,), STORES["int8"]) for w in weights.values()]
    results = list(decompose_weights(source, Plan(tuple(planned), (), False)))
    assert len(results) == 3 and len(counts) == 6
    assert max(counts) - counts[0] < matrices["a"].nbytes / 4  # stored cores are small
