"""The floating-point stores: rounded to nearest, and what is out of range is refused."""

from __future__ import annotations

import pytest
import torch

from ttcompress.errors import DecompositionError
from ttcompress.stores import STORES
from ttcompress.stores.floats import FLOATS, Floats

every_float = pytest.mark.parametrize("store", FLOATS, ids=lambda store: store.name)


@every_float
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_values_are_rounded_to_nearest(store: Floats, dtype: torch.dtype) -> None:
    values = torch.randn(50, generator=torch.Generator().manual_seed(4)).to(dtype)
    kept = store.encode(values).values()
    assert torch.equal(kept, values.to(getattr(torch, store.name)).float())


@every_float
def test_bytes_are_those_of_the_type(store: Floats) -> None:
    assert store.estimate_bytes(1001) == 1001 * {"float32": 4}.get(store.name, 2)


def test_a_store_that_is_proposed_instead_holds_the_value() -> None:
    values = torch.tensor([1e38, 0.0], dtype=torch.float64)
    with pytest.raises(DecompositionError, match=r"float16 cannot hold .*\. Use bfloat16"):
        STORES["float16"].encode(values)
    assert bool(STORES["bfloat16"].encode(values).values().any())


@every_float
def test_no_other_store_is_proposed_for_what_float32_cannot_hold(store: Floats) -> None:
    with pytest.raises(DecompositionError, match=rf"{store.name} cannot .*\. Keep this weight"):
        store.encode(torch.tensor([1e39], dtype=torch.float64))
