"""Zeros of a weight come back as zeros, however it is stored."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ttcompress.layers.matrices import TrainWeight
from ttcompress.model.weights import Weight
from ttcompress.planning.formats import DenseLayout, Layout, MpoLayout, MpsLayout
from ttcompress.stores import STORES
from ttcompress.trains.stored import StoredWeight, keep_zeros, store_alike, store_weight
from ttcompress.trains.weighting import Weighting

DENSE = DenseLayout((24,), (30,))
TRAINS: list[Layout] = [
    MpsLayout((24,), (30,)),
    MpsLayout((4, 6), (5, 6)),
    MpoLayout((4, 6), (5, 6)),
    MpoLayout((24, 1), (1, 30)),
]
any_store = st.sampled_from(list(STORES))
numbers = st.integers(0, 9999)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def sparse(fraction: float, seed: int) -> Tensor:
    """Zeros anywhere, some of them negative, and a row and a column of nothing else."""
    matrix = normal(24, 30, seed=seed)
    matrix[normal(24, 30, seed=seed + 1).argsort() < 30 * fraction] = 0.0
    matrix[seed % 24], matrix[:, seed % 30] = 0.0, -0.0
    return matrix


def weighting_of(seed: int) -> Weighting:
    inputs = normal(200, 30, seed=seed) @ normal(30, 30, seed=seed + 1)
    return Weighting.damped(normal(24, seed=seed).square(), inputs.mT @ inputs / 200)


def stored_as(
    matrix: Tensor, layout: Layout, store: str, weighting: Weighting | None
) -> StoredWeight:
    weight = Weight("w", ("w",), "linear", (24, 30), "float32")
    ranks = layout.attainable([6] * (layout.cores - 1))
    return store_weight(matrix, weight, layout, ranks, STORES[store], weighting)[0]


@settings(max_examples=80, deadline=None)
@given(any_store, st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]), numbers, st.booleans())
def test_a_dense_weight_keeps_every_zero(
    store: str, fraction: float, seed: int, calibrated: bool
) -> None:
    matrix = sparse(fraction, seed)
    weighting = weighting_of(seed) if calibrated else None
    found = stored_as(matrix, DENSE, store, weighting).dense()
    assert not found[matrix == 0].any()
    assert bool(found.any()) == bool(matrix.any())


@settings(max_examples=60, deadline=None)
@given(any_store, st.sampled_from(TRAINS), numbers, st.booleans())
def test_a_train_keeps_zero_rows_and_columns_in_every_way_to_use_it(
    store: str, layout: Layout, seed: int, calibrated: bool
) -> None:
    matrix = sparse(0.3, seed)
    stored = stored_as(matrix, layout, store, weighting_of(seed) if calibrated else None)
    row, column = seed % 24, seed % 30
    assert (row in stored.zero_rows, column in stored.zero_columns) == (True, True)
    train = stored.train()
    layer = TrainWeight(train)
    lookup = torch.arange(24)
    for found in (
        stored.dense(),
        torch.cat(list(stored.blocks())),
        train.reference(),
        train.to_dense(),
        train.rows(lookup),
        train.apply(torch.eye(30)).mT,
        layer.dense(),
        layer.product()(torch.eye(30)).mT,
    ):
        assert not found[row].any() and not found[:, column].any()
        assert torch.allclose(found.double(), train.reference(), atol=1e-5)
    assert bool(train.to_dense().any())


def test_weights_without_zeros_remember_none() -> None:
    for layout in TRAINS:
        stored = stored_as(normal(24, 30, seed=3), layout, "int4", None)
        assert stored.zero_rows == stored.zero_columns == ()
        assert stored.train().zero_rows is stored.train().zero_columns is None


@pytest.mark.parametrize("layout", [DENSE, *TRAINS], ids=str)
@pytest.mark.parametrize("store", ["int2", "int4", "int8", "float16"])
def test_a_weight_of_zeros_stays_one(layout: Layout, store: str) -> None:
    for weighting in (None, weighting_of(1)):
        stored = stored_as(torch.zeros(24, 30), layout, store, weighting)
        assert not stored.dense().any()


@pytest.mark.parametrize("layout", [DENSE, *TRAINS], ids=str)
def test_a_refitted_weight_keeps_the_zeros_of_its_source(layout: Layout) -> None:
    source, target = sparse(0.5, 8), normal(24, 30, seed=5)
    kept = keep_zeros(target, source, layout)
    assert not kept[8].any() and not kept[:, 8].any()
    assert torch.equal(kept == 0, source == 0) == (layout == DENSE)
    like = stored_as(source, layout, "int4", None)
    found = store_alike(kept, like, weighting_of(3))
    assert (found.zero_rows, found.zero_columns) == (like.zero_rows, like.zero_columns)
    assert not found.dense()[8].any()


def test_cores_that_change_later_still_give_zeros() -> None:
    stored = stored_as(sparse(0.1, 4), TRAINS[1], "float32", None)
    moved = replace(stored, parts=tuple(p.store.encode(p.values() + 1) for p in stored.parts))
    assert not moved.dense()[4].any() and not moved.dense()[:, 4].any()


def test_masks_are_not_in_the_state_dict_and_follow_the_layer() -> None:
    layer = TrainWeight(stored_as(sparse(0.1, 4), TRAINS[2], "float32", None).train())
    assert list(layer.state_dict()) == ["cores.0", "cores.1"]
    assert layer.to("meta").zero_rows.device.type == "meta"
