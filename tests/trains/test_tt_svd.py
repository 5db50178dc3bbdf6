"""TT-SVD: truths built first and found again, errors equal to what was discarded."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import numpy as np
import pytest
import tensorly.decomposition
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ttcompress.planning.formats import FORMATS, Layout, MpoLayout, MpsLayout
from ttcompress.trains.formats import TRAINS, train_of
from ttcompress.trains.train import Decomposition
from ttcompress.trains.tt_svd import spectrum_at, tensorize

LAYOUTS = [
    MpsLayout((24,), (18,)),
    MpsLayout((4, 6), (18,)),
    MpsLayout((4, 6), (3, 6)),
    MpsLayout((2, 3, 4), (3, 3, 2)),
    MpoLayout((4, 6), (6, 3)),
    MpoLayout((2, 3, 4), (3, 2, 3)),
    MpoLayout((24, 1), (1, 18)),
]
every_layout = pytest.mark.parametrize("layout", LAYOUTS, ids=str)
every_format = pytest.mark.parametrize("train_format", ("mps", "mpo"))


@every_layout
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["svd", "gram"])
def test_a_train_of_known_ranks_is_found_again(layout: Layout, dtype: torch.dtype) -> None:
    ranks = layout.attainable([2 + k % 2 for k in range(layout.cores - 1)])
    matrix = truth(layout, ranks).to(dtype)
    found = tt_svd(matrix, layout, ranks)
    assert found.train.ranks == ranks
    assert relative_error(matrix, found) < (1e-10 if dtype == torch.float64 else 1e-7)


@every_layout
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["svd", "gram"])
def test_the_squared_error_is_the_discarded_energy(layout: Layout, dtype: torch.dtype) -> None:
    matrix = normal(*layout.shape).to(dtype)
    found = tt_svd(matrix, layout, [max(1, rank // 2) for rank in layout.full_ranks])
    assert squared_error(matrix, found) == pytest.approx(discarded(found), rel=1e-10)


@every_layout
def test_the_error_is_within_the_root_of_the_cuts_of_the_best(layout: Layout) -> None:
    ranks = layout.attainable([3] * (layout.cores - 1))
    noise = 0.1 * normal(*layout.shape, seed=5)  # the best train is at most this far away
    matrix = truth(layout, ranks) + noise
    error = sqrt(squared_error(matrix, tt_svd(matrix, layout, ranks)))
    assert error <= sqrt(len(ranks)) * float(noise.norm())
    tails = [spectrum_at(matrix, cut).tail(r) for cut, r in zip(layout.cuts, ranks, strict=True)]
    assert max(tails) <= error**2 * (1 + 1e-12) <= sum(tails) * (1 + 1e-10)


@every_layout
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_nothing_is_lost_at_full_rank(layout: Layout, dtype: torch.dtype) -> None:
    matrix = normal(*layout.shape).to(dtype)
    found = tt_svd(matrix, layout)
    assert found.train.ranks == layout.full_ranks
    assert all(core.dtype == torch.float64 for core in found.train.cores)
    assert relative_error(matrix, found) < 1e-13


@every_layout
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["svd", "gram"])
def test_all_cores_but_the_last_are_left_orthogonal(layout: Layout, dtype: torch.dtype) -> None:
    matrix = normal(*layout.shape).to(dtype)
    *cores, last = tt_svd(matrix, layout, [5] * (layout.cores - 1)).train.cores
    for core in cores:
        flat = core.reshape(-1, core.shape[-1])
        assert torch.allclose(flat.T @ flat, torch.eye(flat.shape[1]).double(), atol=1e-12)
    full = tt_svd(matrix, layout).train.cores[-1]
    assert float(full.norm()) == pytest.approx(float(matrix.double().norm()), rel=1e-12)
    assert float(last.norm()) < float(full.norm())


@every_layout
@pytest.mark.parametrize("fall", [1e-6, 1e-9, 0.0])
def test_they_are_so_however_small_the_last_singular_values_are(
    layout: Layout, fall: float
) -> None:
    """In float32, by the Gram matrix: squaring loses what is below 1e-8 of the largest."""
    u, s, vt = torch.linalg.svd(normal(*layout.shape), full_matrices=False)
    falling = torch.where(torch.arange(len(s)) < len(s) // 2, 1.0, fall).double()
    matrix = (u * (s * falling) @ vt).float()
    found = tt_svd(matrix, layout)
    for core in found.train.cores[:-1]:
        flat = core.reshape(-1, core.shape[-1])
        assert torch.allclose(flat.T @ flat, torch.eye(flat.shape[1]).double(), atol=1e-9)
    assert relative_error(matrix, found) < 1e-7


@every_layout
def test_caps_above_the_attainable_are_lowered(layout: Layout) -> None:
    matrix = normal(*layout.shape)
    assert tt_svd(matrix, layout, [10**6] * (layout.cores - 1)).train.ranks == layout.full_ranks


@pytest.mark.parametrize(
    "layout", [one for one in LAYOUTS if one.format == "mps"] + [LAYOUTS[4], LAYOUTS[5]], ids=str
)
def test_never_worse_than_tensorly_at_the_same_ranks(layout: Layout) -> None:
    matrix = normal(*layout.shape)
    ranks = layout.attainable([4] * (layout.cores - 1))
    tensor = tensorize(matrix, layout).numpy()
    theirs = tensorly.decomposition.tensor_train(tensor, rank=[1, *ranks, 1])
    their_error = float(np.square(tensorly.tt_to_tensor(theirs) - tensor).sum())
    for dtype in (torch.float64, torch.float32):
        found = tt_svd(matrix.to(dtype), layout, ranks)
        assert found.train.ranks == ranks
        assert squared_error(matrix, found) <= their_error * (1 + 1e-6)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["svd", "gram"])
@every_format
def test_scale_does_not_matter(train_format: str, dtype: torch.dtype, scale: float) -> None:
    layout = FORMATS[train_format]((4, 6), (6, 3))
    matrix = (scale * decaying(24, 18)).to(dtype)
    assert relative_error(matrix, tt_svd(matrix, layout)) < 1e-13
    found = tt_svd(matrix, layout, [3] * (layout.cores - 1))
    assert relative_error(matrix, found) > 0.01
    assert squared_error(matrix, found) == pytest.approx(discarded(found), rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["svd", "gram"])
@every_format
def test_a_zero_matrix_stays_zero(train_format: str, dtype: torch.dtype) -> None:
    layout, matrix = FORMATS[train_format]((4, 6), (6, 3)), torch.zeros(24, 18, dtype=dtype)
    assert torch.equal(tt_svd(matrix, layout).train.to_dense(), matrix.double())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["svd", "gram"])
@pytest.mark.parametrize("shape", [(24, 18), (18, 24)], ids=["tall", "wide"])
def test_a_rank_deficient_matrix_loses_nothing(dtype: torch.dtype, shape: tuple[int, int]) -> None:
    rows, columns = shape
    integers = torch.randint(-3, 4, (rows, 2), generator=torch.Generator().manual_seed(0))
    matrix = (integers @ torch.ones(2, columns, dtype=torch.int64)).to(dtype)  # exactly rank 1
    layout = MpsLayout((rows,), (columns,))
    for ranks in (None, (1,)):
        assert relative_error(matrix, tt_svd(matrix, layout, ranks)) < 1e-7


@pytest.mark.parametrize(
    "layout",
    [
        MpsLayout((1,), (83,)),
        MpsLayout((129,), (1,)),
        MpoLayout((1, 1), (7, 11)),
        MpsLayout((3, 43), (257,)),
        MpoLayout((83, 1), (1, 257)),
        MpoLayout((3, 43), (83, 1)),
        MpoLayout((5,), (7,)),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["svd", "gram"])
def test_vectors_and_prime_sizes(layout: Layout, dtype: torch.dtype) -> None:
    matrix = normal(*layout.shape).to(dtype)
    assert relative_error(matrix, tt_svd(matrix, layout)) < 1e-13


@settings(max_examples=60, deadline=None)
@given(
    train_format=st.sampled_from(("mps", "mpo")),
    pairs=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=2, max_size=3),
    cap=st.integers(1, 6),
    wide=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_laws_of_the_sweep(
    train_format: str,
    pairs: list[tuple[int, int]],
    cap: int,
    wide: bool,
    seed: int,
) -> None:
    rows, columns = zip(*pairs, strict=True)
    layout = FORMATS[train_format](rows, columns)
    matrix = normal(*layout.shape, seed=seed).to(torch.float64 if wide else torch.float32)
    found = tt_svd(matrix, layout, [cap] * (layout.cores - 1))
    energy = float(matrix.double().square().sum())
    assert found.train.ranks == layout.attainable([cap] * (layout.cores - 1))
    assert squared_error(matrix, found) == pytest.approx(discarded(found), abs=1e-10 * energy)
    assert all(spectrum.energy <= energy * (1 + 1e-10) for spectrum in found.spectra)


@every_layout
def test_spectra_are_those_of_the_unfoldings(layout: Layout) -> None:
    matrix = normal(*layout.shape)
    tensor = tensorize(matrix, layout).numpy()
    for k, cut in enumerate(layout.cuts):
        left = int(np.prod(layout.sizes[: k + 1]))
        wanted = np.linalg.svd(tensor.reshape(left, -1), compute_uv=False)
        assert np.allclose(spectrum_at(matrix, cut).values, wanted, rtol=1e-10, atol=1e-12)
        narrow = spectrum_at(matrix.float(), cut).values
        assert np.allclose(narrow, wanted, rtol=1e-5, atol=1e-6)


def tt_svd(matrix: Tensor, layout: Layout, ranks: Sequence[int] | None = None) -> Decomposition:
    """At full rank unless ranks are given."""
    caps = layout.full_ranks if ranks is None else ranks
    return TRAINS[layout.format].decompose(matrix, layout, caps)


def truth(layout: Layout, ranks: tuple[int, ...]) -> Tensor:
    cores = [normal(*shape, seed=k) for k, shape in enumerate(layout.core_shapes(ranks))]
    return train_of(layout, tuple(cores)).to_dense()


def decaying(rows: int, columns: int) -> Tensor:
    """A matrix whose singular values fall by half."""
    u, s, vt = torch.linalg.svd(normal(rows, columns), full_matrices=False)
    return (u * 0.5 ** torch.arange(len(s))) @ vt


def normal(*shape: int, seed: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def squared_error(matrix: Tensor, found: Decomposition) -> float:
    return float((matrix.double() - found.train.to_dense()).square().sum())


def relative_error(matrix: Tensor, found: Decomposition) -> float:
    return sqrt(squared_error(matrix, found) / float(matrix.double().square().sum()))


def discarded(found: Decomposition) -> float:
    cuts = zip(found.spectra, found.train.ranks, strict=True)
    return sum(spectrum.tail(rank) for spectrum, rank in cuts)
