"""The store `coded`: steps as the costs say, nothing clipped, the same bytes, damage refused."""

from __future__ import annotations

from itertools import pairwise
from math import sqrt

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ttcompress.errors import DecompositionError
from ttcompress.stores import Costs, Encoded
from ttcompress.stores.coded import CODED, FINE, PART
from ttcompress.stores.rans import encode as coded
from ttcompress.stores.store import as_grid, from_grid

SHAPES = {
    "dense": (40, 90),
    "first core": (1, 64, 7),
    "last core": (7, 64, 1),
    "rank one": (1, 64, 1),
    "MPO": (3, 8, 10, 4),
    "vector": (300,),
}
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


def values_of(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def costs_of(shape: tuple[int, ...]) -> Costs:
    """Costs that differ by a factor of a million from one end of the grid to the other."""
    components, places = as_grid(torch.empty(shape)).shape
    return Costs(torch.logspace(2, -1, components), torch.logspace(-2, 1, places))


def encode(values: Tensor, step: float, costs: Costs | None = None) -> Encoded:
    store = CODED.at(step)
    costs = costs_of(tuple(values.shape)) if costs is None else costs
    return store.encode(values, store.fit(values, costs))


def alike(shape: tuple[int, ...]) -> Costs:
    """A unit error costs 1 everywhere."""
    components, places = as_grid(torch.empty(shape)).shape
    return Costs(torch.ones(components), torch.ones(places))


@every_shape
def test_a_grid_has_a_row_for_each_component(shape: tuple[int, ...]) -> None:
    values = values_of(shape)
    grid = as_grid(values)
    rows = {2: shape[0], 1: 1}.get(len(shape), shape[0] if shape[-1] == 1 else shape[-1])
    assert grid.shape == (rows, values.numel() // rows)
    assert torch.equal(from_grid(grid, shape), values)
    if len(shape) > 2 and shape[-1] > 1:
        assert torch.equal(grid[2], values[..., 2].flatten())


@pytest.mark.parametrize("step", [1 / 32, 1 / 8, 1 / 4])
def test_errors_of_fine_steps_cost_a_twelfth_of_their_square(step: float) -> None:
    """At every cost: steps are half as wide where an error costs four times as much."""
    shape = (60, 500)
    costs, values = costs_of(shape), values_of(shape)
    cost = costs.components[:, None] * costs.places
    scaled = values / cost.sqrt()  # each value a unit in its step, whatever it costs
    error = encode(scaled, step, costs).values().double() - scaled
    paid = (cost * error.square()) / step**2
    # Scales are powers of the fourth root of 2: rounding them makes steps up to 9 % wider or finer.
    assert paid.mean() == pytest.approx(1 / 12, rel=0.03)
    for part in (paid[:10], paid[-10:], paid[:, :50], paid[:, -50:]):
        assert part.mean() == pytest.approx(1 / 12, rel=0.2)


@every_shape
def test_every_value_is_within_half_a_step_however_large(shape: tuple[int, ...]) -> None:
    values = values_of(shape) ** 5 * 100
    store = CODED.at(0.05)
    fitted = store.fit(values, costs_of(shape))
    stored = store.encode(values, fitted).values().double()
    steps = store.steps(fitted, values)
    assert bool(((stored - values).abs() <= 0.5 * steps + 3e-7 * values.abs()).all())
    torch.testing.assert_close(stored, store.nearest(values, steps), rtol=1e-6, atol=0)


@every_shape
def test_what_is_written_is_read_to_the_same_bits(shape: tuple[int, ...]) -> None:
    encoded = encode(values_of(shape), 0.2)
    part = encoded.tensors[PART]
    assert part.dtype == torch.uint8 and part.dim() == 1
    assert encoded.bytes == len(part) < 3 * values_of(shape).numel() + 64
    again = Encoded.read(CODED, shape, "w", {f"w{PART}": part.clone()})
    assert torch.equal(again.values(), encoded.values())
    assert torch.equal(again.tensors[PART], part)  # and is not coded anew to anything else
    assert torch.equal(encode(values_of(shape), 0.2).tensors[PART], part)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(list(SHAPES.values())),
    st.floats(1e-12, 1e12),
    st.floats(1e-4, 10),
    st.integers(0, 9),
)
def test_any_scale_and_step_come_back(
    shape: tuple[int, ...], scale: float, step: float, seed: int
) -> None:
    values = scale * values_of(shape, seed)
    encoded = encode(values, scale * step)
    read = Encoded.read(CODED, shape, "", dict(encoded.tensors))
    assert torch.equal(read.values(), encoded.values())
    assert encoded.bytes <= CODED.most_bytes(values.numel())


def test_zeros_stay_zeros_at_any_cost() -> None:
    values = values_of((30, 40))
    values[3:9] = 0
    values[:, ::7] = 0
    costs = costs_of((30, 40))
    costs.components[3:5] = 0
    for stored in (CODED.encode(values).values(), encode(values, 1e-3, costs).values()):
        assert not stored[values == 0].any()
        assert stored[values.abs() > 0.2].all()


def test_what_costs_nothing_is_as_coarse_as_the_cheapest() -> None:
    costs = alike((4, 50))
    costs.components[:] = torch.tensor([4.0, 1.0, 0.0, 0.0])
    store = CODED.at(0.1)
    steps = store.steps(store.fit(values_of((4, 50)), costs), values_of((4, 50)))
    torch.testing.assert_close(steps[:, 0], torch.tensor([0.05, 0.1, 0.1, 0.1]).double())


def test_without_a_plan_six_bits_or_so_at_a_small_error() -> None:
    values = 1e-6 * values_of((200, 300))
    encoded = CODED.encode(values)
    error = float((encoded.values().double() - values).norm() / values.norm())
    assert error == pytest.approx(FINE / sqrt(12), rel=0.02)
    assert encoded.bytes == pytest.approx(CODED.estimate_bytes(values.numel()), rel=0.05)


def test_a_finer_step_takes_a_bit_more_for_half_the_error() -> None:
    values, costs = values_of((200, 300)), alike((200, 300))
    sizes = [encode(values, step, costs).bytes for step in (0.2, 0.1, 0.05)]
    for coarse, fine in pairwise(sizes):
        assert 8 * (fine - coarse) / values.numel() == pytest.approx(1, abs=0.03)


def test_small_codes_are_unpacked_in_a_byte_each() -> None:
    values = values_of((20, 30))
    for step, dtype in ((0.1, torch.int8), (1e-3, torch.int16), (1e-7, torch.int32)):
        encoded = encode(values, step, alike((20, 30)))
        assert CODED.unpack(encoded.tensors, (20, 30))["codes"].dtype == dtype


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e39])
def test_what_is_no_float32_is_refused(bad: float) -> None:
    values = values_of((4, 5))
    values[2, 3] = bad
    with pytest.raises(DecompositionError, match="coded cannot hold the value"):
        CODED.encode(values)


def test_a_step_too_fine_for_32_bits_is_refused() -> None:
    values = values_of((4, 5))
    with pytest.raises(DecompositionError, match="step is too small: allow more error"):
        encode(values, 1e-11, alike((4, 5)))


def damaged(part: Tensor, place: int, change: bytes) -> Tensor:
    data = bytearray(part.numpy().tobytes())
    data[place : place + len(change)] = change
    return torch.tensor(list(data), dtype=torch.uint8)


DAMAGES = {
    "no step": (0, b"\x00\x00\xc0\x7f", "step of nan"),
    "infinite step": (0, b"\x00\x00\x80\x7f", "step of inf"),
    "long scales": (4, b"\xff\xff\xff\xff", "coded integers"),
    "no scales": (4, b"\x00\x00\x00\x00", "too few for 1 x"),
    "scales of nothing": (8, b"\xff", "cannot begin with"),
    "a lane elsewhere": (15, b"\xff\xff", "coded integers"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_refused_and_named(damage: str) -> None:
    place, change, fact = DAMAGES[damage]
    part = damaged(encode(values_of((5, 64, 1)), 0.2).tensors[PART], place, change)
    with pytest.raises(ValueError, match=f"w.cores.1: .*{fact}"):
        Encoded.read(CODED, (5, 64, 1), "w.cores.1", {f"w.cores.1{PART}": part})


def test_the_parts_of_a_coded_tensor_are_a_mapping_of_one() -> None:
    parts = encode(values_of((5, 64, 1)), 0.2).tensors
    assert list(parts) == [PART] and len(parts) == 1 and ".planes" not in parts
    with pytest.raises(KeyError, match="planes"):
        parts[".planes"]


def test_a_part_that_is_cut_is_refused() -> None:
    part = encode(values_of((5, 64, 1)), 0.2).tensors[PART]
    for length in (0, 7, 8, 20, len(part) - 1):
        with pytest.raises(ValueError, match=r"too few|coded integers"):
            Encoded.read(CODED, (5, 64, 1), "", {PART: part[:length]})


def test_scales_beyond_any_float_are_refused() -> None:
    part = encode(values_of((2, 3)), 0.2).tensors[PART]
    end = 8 + int.from_bytes(bytes(part[4:8].tolist()), "little")
    scales = torch.from_numpy(coded(torch.tensor([[97, 0, 0, 0, 0]]).numpy()))
    length = torch.tensor(list(len(scales).to_bytes(4, "little")), dtype=torch.uint8)
    wrong = torch.cat([part[:4], length, scales, part[end:]])
    with pytest.raises(ValueError, match="scales beyond 96"):
        Encoded.read(CODED, (2, 3), "", {PART: wrong})
