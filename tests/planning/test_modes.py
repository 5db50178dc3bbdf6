"""Automatic modes: exact factors, never padded, and no hidden SVD among the MPOs."""

from __future__ import annotations

from itertools import product
from math import prod

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ttcompress.model.weights import Weight
from ttcompress.planning.formats import FORMATS, MpoLayout, MpsLayout, decomposing
from ttcompress.planning.formats.modes import balanced, divisors
from ttcompress.planning.menus import find_layouts
from ttcompress.recipe import Assignment, recipe_from

sides = st.integers(1, 700)
formats = st.sampled_from(tuple(FORMATS))


@given(st.integers(1, 3000))
def test_divisors_are_all_of_them(number: int) -> None:
    assert divisors(number) == tuple(d for d in range(1, number + 1) if number % d == 0)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 400), st.integers(1, 4))
def test_balanced_factors_have_the_smallest_largest_one(number: int, count: int) -> None:
    above_one = [d for d in divisors(number) if d > 1]
    every = [modes for modes in product(above_one, repeat=count) if prod(modes) == number]
    found = balanced(number, count)
    if not every:
        assert found is None
    else:
        assert found is not None and prod(found) == number and list(found) == sorted(found)
        assert max(found) == min(max(modes) for modes in every)


@settings(max_examples=150, deadline=None)
@given(sides, sides, formats, st.sampled_from([1, 3, 4]))
def test_modes_multiply_to_the_shape(rows: int, columns: int, name: str, gates: int) -> None:
    shape = (gates * rows, columns)
    found = FORMATS[name].candidates(shape, gates)
    assert found and len(set(found)) == len(found)
    assert all(layout.shape == shape and layout.format == name for layout in found)


@settings(max_examples=150, deadline=None)
@given(sides, sides, st.sampled_from(decomposing()), st.sampled_from([1, 3, 4]))
@example(83, 256, "mpo", 1)
@example(256, 83, "mpo", 1)
@example(1, 83, "mpo", 4)
def test_a_mode_of_1_stands_only_where_a_side_is_prime_or_1(
    rows: int, columns: int, name: str, gates: int
) -> None:
    shape = (gates * rows, columns)
    for layout in FORMATS[name].candidates(shape, gates):
        for size, modes in zip(shape, (layout.row_modes, layout.column_modes), strict=True):
            if 1 in modes:
                assert len(divisors(size)) <= 2


def test_the_truncated_svd_is_always_among_the_mps() -> None:
    for shape in ((1024, 256), (83, 129), (1, 7)):
        found = [(one.row_modes, one.column_modes) for one in MpsLayout.candidates(shape)]
        assert ((shape[0],), (shape[1],)) in found


def test_the_gates_are_split_off_once() -> None:
    assert (4, 256) in [layout.row_modes for layout in MpsLayout.candidates((1024, 256), gates=4)]
    assert (4, 256) in [layout.row_modes for layout in MpoLayout.candidates((1024, 256), gates=4)]


@pytest.mark.parametrize("name", decomposing())
def test_given_modes_are_kept(name: str) -> None:
    weight = Weight("w", ("w",), "linear", (24, 30), "float32")
    given = Assignment(weight, None, None, name, "int8", (4, 6), (5, 6))
    recipe = recipe_from({"version": 1, "budget": {"factor": 2}})
    assert find_layouts(given, recipe).layouts == (FORMATS[name]((4, 6), (5, 6)),)
