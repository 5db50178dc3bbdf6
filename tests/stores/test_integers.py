"""The integer stores: bytes as specified, errors no larger than they must be."""

from __future__ import annotations

from math import ceil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ttcompress.errors import DecompositionError
from ttcompress.stores import STORES, Encoded
from ttcompress.stores.integers import INTEGERS, Integers

every_integer = pytest.mark.parametrize("store", INTEGERS, ids=lambda store: store.name)


@given(st.sampled_from(INTEGERS), st.integers(1, 10**7))
def test_bytes_are_planes_scales_and_factor(store: Integers, values: int) -> None:
    bits = int(store.name[3:])
    group = 32 if bits <= 3 else 64
    wanted = bits * ceil(values / 8) + 2 * ceil(values / group) + 4
    assert store.estimate_bytes(values) == wanted
    assert store.bytes_per_value == bits / 8 + 2 / group


@every_integer
@pytest.mark.parametrize("shape", [(64,), (3, 5), (7, 9, 13), (1, 1000)], ids=str)
def test_planes_scales_and_factor_mean_what_the_format_says(
    store: Integers, shape: tuple[int, ...]
) -> None:
    encoded = store.encode(normal(*shape))
    wanted = read_by_numpy(encoded, store.bits, 64 if store.bits > 3 else 32)
    assert np.array_equal(encoded.values().numpy(), wanted.reshape(shape))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(INTEGERS), st.integers(1, 300), st.sampled_from([1, 3, 8]), st.integers(0))
def test_never_worse_than_the_largest_value_as_scale(
    store: Integers, size: int, tail: int, seed: int
) -> None:
    values = normal(size, seed=seed % 2**31) ** tail
    rounding = 1e-6 * float(values.square().sum())  # of a scale to float16, at its worst
    assert squared_error(values, store) <= squared_error_of_plain_scaling(values, store) + rounding


@every_integer
def test_groups_far_apart_in_size_keep_their_own_scale(store: Integers) -> None:
    small = normal(64, seed=1)
    kept = store.encode(torch.cat([small, 300 * normal(64, seed=2)])).values()[:64]
    lost = float((kept - small).square().sum())
    assert lost == pytest.approx(squared_error(small, store), rel=0.05)


def test_a_value_too_small_for_a_factor_is_refused_and_float32_holds_it() -> None:
    values = torch.tensor([1e-45, 0.0], dtype=torch.float64)
    with pytest.raises(DecompositionError, match=r"int4 cannot hold .*\. Use float32"):
        STORES["int4"].encode(values)
    assert bool(STORES["float32"].encode(values).values().any())


@every_integer
def test_one_value_is_kept_to_the_precision_of_its_scale(store: Integers) -> None:
    assert float(store.encode(torch.tensor([-0.7])).values()) == pytest.approx(-0.7, rel=1e-3)


def read_by_numpy(encoded: Encoded, bits: int, group: int) -> np.ndarray:
    """The artifact's specification, value by value."""
    planes = encoded.tensors[".planes"].numpy()
    scales = encoded.tensors[".scales"].numpy().astype(np.float32)
    factor = np.float32(encoded.tensors[".factor"].numpy())
    found = np.empty(int(np.prod(encoded.shape)), np.float32)
    for i in range(found.size):
        code = sum(int(planes[bit, i // 8] >> (i % 8) & 1) << bit for bit in range(bits))
        scale = scales[i // group]
        centre = 2 ** (bits - 1) if scale < 0 else (2**bits - 1) / 2
        found[i] = np.float32(code - centre) * (abs(scale) * factor)
    return found


def squared_error_of_plain_scaling(values: Tensor, store: Integers) -> float:
    """The same levels with the largest magnitude of each group as the outermost one."""
    widest, lost = (2**store.bits - 1) / 2, 0.0
    for group in torch.split(values, store.group):
        step = float(group.abs().max()) / widest or 1.0
        levels = ((group / step + widest).round().clamp(0, 2 * widest)) - widest
        lost += float((levels * step - group).square().sum())
    return lost


def normal(*shape: int, seed: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def squared_error(values: Tensor, store: Integers) -> float:
    return float((store.encode(values).values().double() - values).square().sum())


@every_integer
@pytest.mark.parametrize("size", [1, 31, 64, 200])
def test_a_level_at_zero_means_what_the_format_says(store: Integers, size: int) -> None:
    values = normal(size)
    values[::3] = 0.0
    encoded = store.encode(values)
    assert np.array_equal(encoded.values().numpy(), read_by_numpy(encoded, store.bits, store.group))
    assert not encoded.values()[::3].any()


@every_integer
def test_only_groups_with_zeros_get_a_level_at_zero(store: Integers) -> None:
    values = normal(3 * store.group)
    values[store.group + 1] = -0.0
    values[2 * store.group :] = 0.0
    scales = store.encode(values).tensors[".scales"]
    assert scales[0] > 0 > scales[1] and scales[2] == 0


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(INTEGERS), st.integers(1, 300), st.floats(0, 1), st.integers(0, 999))
def test_sparse_values_lose_less_than_on_levels_without_zero(
    store: Integers, size: int, density: float, seed: int
) -> None:
    values = normal(size, seed=seed)
    values[: int(size * (1 - density))] = 0.0
    values = values[torch.randperm(size, generator=torch.Generator().manual_seed(seed))]
    if (size - int(size * (1 - density))) * 2 > size:
        return  # levels at zero are one fewer: they pay where most values are zeros
    nudged = torch.where(values == 0, 1e-30, values)
    assert squared_error(values, store) <= squared_error(nudged, store) + 1e-9
