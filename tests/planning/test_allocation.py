"""Sharing an allowance: exact or close against every combination, and never over."""

from __future__ import annotations

from itertools import product
from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttcompress.planning.allocation import (
    Allowance,
    Choice,
    Menu,
    allocate,
    choose_smallest,
    total_cost,
)
from ttcompress.planning.candidates import Cost, Option
from ttcompress.planning.formats import Layout, MpoLayout, MpsLayout
from ttcompress.planning.spectrum import Spectrum
from ttcompress.stores import STORES

TWO_CORES = MpsLayout((12,), (8,))
MPO = MpoLayout((4, 3), (2, 4))
THREE_CORES = MpsLayout((3, 4), (8,))


def option(layout: Layout, store: str, seed: int, energy: float = 1.0) -> Option:
    """Seeded spectra that fall, of one energy at every cut, as one matrix would have."""
    generator = np.random.default_rng(seed)
    spectra = []
    for rank in layout.full_ranks:
        values = np.sort(generator.random(rank) * 0.7 ** np.arange(rank))[::-1]
        scaled = np.sqrt(energy) * values / np.linalg.norm(values)
        spectra.append(Spectrum(tuple(scaled.tolist())))
    full = layout.full_ranks
    floors = (1,) * len(full)
    return Option(layout, STORES[store], energy, tuple(spectra), floors, full)


def least_error(menus: list[Menu], allowance: Allowance) -> float:
    """By trying every combination of options and ranks."""
    every = [
        [
            (choice.error, choice.cost)
            for one in menu
            for ranks in product(*(range(1, cap + 1) for cap in one.caps))
            if one.layout.attainable(ranks) == ranks
            for choice in [Choice(one, ranks)]
        ]
        for menu in menus
    ]
    return min(
        sum(error for error, _ in combination)
        for combination in product(*every)
        if allowance.usage(sum((cost for _, cost in combination), Cost())) <= 1
    )


def shared(menus: list[Menu], allowance: Allowance) -> tuple[Choice, ...]:
    choices = allocate(menus, allowance)
    assert choices is not None
    assert allowance.usage(total_cost(choices)) <= 1
    for choice, menu in zip(choices, menus, strict=True):
        assert choice.option in menu
        assert all(map(int.__le__, choice.ranks, choice.option.caps))
    return choices


def error(choices: tuple[Choice, ...]) -> float:
    return sum(choice.error for choice in choices)


@pytest.mark.parametrize("layout", [TWO_CORES, MPO], ids=["mps", "mpo"])
@pytest.mark.parametrize("resource", ["bytes", "params"])
@pytest.mark.parametrize("seed", range(6))
def test_two_cores_in_one_store_are_shared_as_well_as_can_be(
    layout: Layout, resource: str, seed: int
) -> None:
    menus = [(option(layout, "float16", seed + 10 * k, energy=1 + k),) for k in range(3)]
    most = getattr(sum((Choice(m[0], m[0].caps).cost for m in menus), Cost()), resource)
    for fraction in (0.3, 0.5, 0.8):
        allowance = Allowance(**{resource: fraction * most})
        found = error(shared(menus, allowance))
        assert found <= least_error(menus, allowance) * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(8))
def test_three_cores_are_shared_nearly_as_well_as_can_be(seed: int) -> None:
    menus = [(option(THREE_CORES, "float16", seed + 10 * k),) for k in range(2)]
    for limit in (150, 250, 350):
        allowance = Allowance(bytes=limit)
        assert error(shared(menus, allowance)) <= 1.15 * least_error(menus, allowance)


@pytest.mark.parametrize("seed", range(8))
def test_ranks_layouts_and_stores_are_chosen_nearly_as_well_as_can_be(seed: int) -> None:
    stores = ("int3", "int4", "int6", "float16")
    layouts = (TWO_CORES, THREE_CORES)
    menus: list[Menu] = [
        tuple(option(one, store, seed + 10 * k) for one in layouts for store in stores)
        for k in range(2)
    ]
    for limit in (90, 140, 250):
        allowance = Allowance(bytes=limit)
        assert error(shared(menus, allowance)) <= 1.1 * least_error(menus, allowance)


@pytest.mark.parametrize("seed", range(8))
def test_several_limits_are_shared_nearly_as_well_as_can_be(seed: int) -> None:
    menus: list[Menu] = [
        tuple(option(TWO_CORES, store, seed + 10 * k) for store in ("int4", "int8"))
        for k in range(2)
    ]
    for limits in ((120, 100), (160, 80), (90, 160)):
        allowance = Allowance(bytes=limits[0], multiply_adds=limits[1])
        assert error(shared(menus, allowance)) <= 1.1 * least_error(menus, allowance)


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 9999),
    st.lists(st.floats(0.01, 100), min_size=1, max_size=4),
    st.tuples(*[st.one_of(st.just(inf), st.floats(20, 3000))] * 3),
)
def test_never_over_and_none_only_where_nothing_fits(
    seed: int, energies: list[float], limits: tuple[float, float, float]
) -> None:
    layouts = (TWO_CORES, THREE_CORES, MPO)
    menus: list[Menu] = [
        tuple(option(one, store, seed + k, energy) for one in layouts for store in ("int4", "int8"))
        for k, energy in enumerate(energies)
    ]
    allowance = Allowance(*limits)
    if allocate(menus, allowance) is None:
        least = total_cost(choose_smallest(menus, allowance))
        assert allowance.usage(least) > 1
    else:
        shared(menus, allowance)


def test_without_limits_every_rank_is_at_its_cap() -> None:
    menus = [(option(THREE_CORES, "float32", 1),), (option(MPO, "float32", 2),)]
    assert [choice.ranks for choice in shared(menus, Allowance())] == [
        THREE_CORES.full_ranks,
        MPO.full_ranks,
    ]


def test_the_weight_with_more_to_lose_gets_more() -> None:
    menus = [(option(TWO_CORES, "float32", 3, energy),) for energy in (1.0, 100.0)]
    small, large = shared(menus, Allowance(params=120))
    assert small.ranks < large.ranks


def test_the_best_rank_of_two_cores_is_found_in_one_step() -> None:
    one = option(TWO_CORES, "float16", 5)
    for price in np.geomspace(1e-7, 1e-1, 30):
        prices = Cost(bytes=float(price))
        every = [
            (one.error((r,)) + one.cost((r,)).times(prices), r) for r in range(1, one.caps[0] + 1)
        ]
        assert one.descend(prices, one.caps) == (min(every)[1],)
