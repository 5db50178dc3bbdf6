"""Stores: bytes as planned, layout as specified, errors no larger than they must be."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ttcompress.errors import DecompositionError
from ttcompress.stores.rounding import Rounded, round_to
from ttcompress.stores import STORES, Store

INTEGERS = [store for store in STORES.values() if store.is_integer]
FLOATS = [store for store in STORES.values() if not store.is_integer]
every_store = pytest.mark.parametrize("store", STORES.values(), ids=STORES.keys())
every_integer = pytest.mark.parametrize("store", INTEGERS, ids=lambda store: store.name)
any_store = st.sampled_from(list(STORES.values()))


@settings(max_examples=100, deadline=None)
@given(any_store, st.lists(st.integers(0, 12), min_size=1, max_size=3), st.integers(0, 999))
def test_bytes_shape_and_dtype_are_the_planned_ones(
    store: Store, shape: list[int], seed: int
) -> None:
    rounded = round_to(normal(*shape, seed=seed), store)
    assert rounded.bytes == store.bytes(int(np.prod(shape)))
    assert rounded.values().shape == tuple(shape)
    assert rounded.values().dtype == torch.float32


@every_integer
@pytest.mark.parametrize("shape", [(64,), (3, 5), (7, 9, 13), (1, 1000)], ids=str)
def test_planes_scales_and_factor_mean_what_the_format_says(
    store: Store, shape: tuple[int, ...]
) -> None:
    rounded = round_to(normal(*shape), store)
    wanted = read_by_numpy(rounded, store.bits, 64 if store.bits > 3 else 32)
    assert np.array_equal(rounded.values().numpy(), wanted.reshape(shape))


@every_store
def test_noise_is_the_measured_one_within_a_tenth(store: Store) -> None:
    values = normal(1 << 15)
    if store.noise < 1e-14:
        assert relative_noise(values, store) <= 10 * store.noise
    else:
        assert relative_noise(values, store) == pytest.approx(store.noise, rel=0.1)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(INTEGERS), st.integers(1, 300), st.sampled_from([1, 3, 8]), st.integers(0))
def test_never_worse_than_the_largest_value_as_scale(
    store: Store, size: int, tail: int, seed: int
) -> None:
    values = normal(size, seed=seed % 2**31) ** tail
    rounding = 1e-6 * float(values.square().sum())  # of a scale to float16, at its worst
    assert squared_error(values, store) <= squared_error_of_plain_scaling(values, store) + rounding


@every_store
def test_zeros_stay_zeros(store: Store) -> None:
    assert torch.equal(round_to(torch.zeros(3, 40), store).values(), torch.zeros(3, 40))
    values = torch.cat([torch.zeros(64), normal(64).float()])
    assert torch.equal(round_to(values, store).values()[:64], torch.zeros(64))


@every_store
def test_values_that_vanish_in_float32_become_zeros(store: Store) -> None:
    values = torch.full((64,), 1e-60, dtype=torch.float64)
    assert torch.equal(round_to(values, store).values(), torch.zeros(64))


@every_store
def test_rounding_what_was_rounded_changes_little(store: Store) -> None:
    once = round_to(normal(3, 200), store).values()
    again = round_to(once, store).values()
    assert float((again - once).norm() / once.norm()) < 1e-3


@every_store
@pytest.mark.parametrize("scale", [1e-30, 1e30], ids=["tiny", "huge"])
def test_tiny_and_huge_values(store: Store, scale: float) -> None:
    values = scale * normal(4, 100)
    if store.name != "float16":
        assert relative_noise(values, store) <= 2 * store.noise
    elif scale > 1:
        with pytest.raises(DecompositionError, match=r"float16 cannot hold the value .*e\+30.*Use"):
            round_to(values, store)
    else:
        assert not round_to(values, store).values().any()


@every_integer
def test_groups_far_apart_in_size_keep_their_own_scale(store: Store) -> None:
    values = torch.cat([normal(64, seed=1), 300 * normal(64, seed=2)])
    kept = round_to(values, store).values()[:64]
    lost = float((kept - values[:64]).square().sum() / values[:64].square().sum())
    assert lost == pytest.approx(relative_noise(values[:64], store), rel=0.05)


@every_integer
def test_values_that_no_factor_can_hold_are_refused(store: Store) -> None:
    said = rf"{store.name} cannot hold the value 1e\+300\. Keep this weight"
    with pytest.raises(DecompositionError, match=said):
        round_to(torch.full((64,), 1e300, dtype=torch.float64), store)


def test_a_store_that_is_proposed_instead_holds_the_value() -> None:
    for store, proposed, value in (("int4", "float32", 1e-45), ("float16", "bfloat16", 1e38)):
        values = torch.tensor([value, 0.0], dtype=torch.float64)
        with pytest.raises(DecompositionError, match=rf"\. Use {proposed}"):
            round_to(values, STORES[store])
        assert bool(round_to(values, STORES[proposed]).values().any())
    for name in ("float16", "bfloat16", "float32"):
        with pytest.raises(DecompositionError, match=rf"{name} cannot .*\. Keep this weight"):
            round_to(torch.tensor([1e39], dtype=torch.float64), STORES[name])


@every_integer
def test_one_value_is_kept_to_the_precision_of_its_scale(store: Store) -> None:
    assert float(round_to(torch.tensor([-0.7]), store).values()) == pytest.approx(-0.7, rel=1e-3)


@pytest.mark.parametrize("store", FLOATS, ids=lambda store: store.name)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_float_stores_round_to_nearest(store: Store, dtype: torch.dtype) -> None:
    values = normal(50).to(dtype)
    assert torch.equal(
        round_to(values, store).values(), values.to(getattr(torch, store.name)).float()
    )


@every_store
def test_stored_parts_are_found_again_by_key(store: Store) -> None:
    rounded = round_to(normal(5, 30), store)
    kept = {f"w.cores.0{suffix}": part for suffix, part in rounded.tensors.items()}
    again = Rounded.read(store, (5, 30), "w.cores.0", kept)
    assert torch.equal(again.values(), rounded.values())
    for key in kept:
        with pytest.raises(KeyError):
            Rounded.read(store, (5, 30), "w.cores.0", {k: v for k, v in kept.items() if k != key})
    with pytest.raises(ValueError, match=f"{store.name} needs"):
        Rounded.read(store, (6, 31), "w.cores.0", kept)


def read_by_numpy(rounded: Rounded, bits: int, group: int) -> np.ndarray:
    """The artifact's specification, value by value."""
    planes = rounded.tensors[".planes"].numpy()
    scales = rounded.tensors[".scales"].numpy().astype(np.float32)
    factor = np.float32(rounded.tensors[".factor"].numpy())
    found = np.empty(int(np.prod(rounded.shape)), np.float32)
    for i in range(found.size):
        code = sum(int(planes[bit, i // 8] >> (i % 8) & 1) << bit for bit in range(bits))
        found[i] = np.float32(code - (2**bits - 1) / 2) * (scales[i // group] * factor)
    return found


def squared_error_of_plain_scaling(values: Tensor, store: Store) -> float:
    """The same levels with the largest magnitude of each group as the outermost one."""
    widest, lost = (2**store.bits - 1) / 2, 0.0
    for group in torch.split(values, store.group or 1):
        step = float(group.abs().max()) / widest or 1.0
        levels = ((group / step + widest).round().clamp(0, 2 * widest)) - widest
        lost += float((levels * step - group).square().sum())
    return lost


def normal(*shape: int, seed: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def squared_error(values: Tensor, store: Store) -> float:
    return float((round_to(values, store).values().double() - values).square().sum())


def relative_noise(values: Tensor, store: Store) -> float:
    unit = values / values.abs().max()
    kept = round_to(values, store).values().double() / values.abs().max()
    return float((kept - unit).square().sum() / unit.square().sum())
