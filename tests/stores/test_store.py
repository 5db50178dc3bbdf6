"""Number types as facts: bytes, bits, and the order the planner relies on."""

from __future__ import annotations

from itertools import pairwise
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttcompress.stores.store import AUTO_STORES, STORES, Store


@given(st.sampled_from(list(STORES.values())), st.integers(1, 10**7))
def test_bytes_are_planes_scales_and_factor(store: Store, values: int) -> None:
    if store.is_integer:
        group = 32 if store.bits <= 3 else 64
        assert store.bytes(values) == store.bits * ceil(values / 8) + 2 * ceil(values / group) + 4
    else:
        assert store.bytes(values) == values * {"float32": 4}.get(store.name, 2)


@given(st.sampled_from(list(STORES.values())))
def test_bits_with_scales_is_the_limit_of_many_values(store: Store) -> None:
    assert 8 * store.bytes(1 << 24) / (1 << 24) == pytest.approx(store.bits_with_scales, rel=1e-5)


def test_stores_to_choose_from_get_finer_as_they_get_larger() -> None:
    assert [store.name for store in AUTO_STORES] == [n for n in STORES if n != "bfloat16"]
    for coarse, fine in pairwise(AUTO_STORES):
        assert coarse.bits_with_scales < fine.bits_with_scales
        assert coarse.noise > fine.noise
