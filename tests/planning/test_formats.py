"""Layouts: core shapes, attainable ranks and multiply-adds, against counting and brute force."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise, product
from math import prod

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from kron_layout import KronLayout

from ttcompress.planning.formats import FORMATS, DenseLayout, Layout, MpoLayout, MpsLayout

small_modes = st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple)


@st.composite
def small_layouts(draw: st.DrawFn) -> Layout:
    """Of every format and of a toy; modes that make no layout of it are drawn again."""
    one: type[Layout] = draw(st.sampled_from([*FORMATS.values(), KronLayout]))
    layout = one(draw(small_modes), draw(small_modes))
    try:
        assert layout.core_axes
    except ValueError:
        reject()
    return layout


@settings(max_examples=60, deadline=None)
@given(small_layouts(), st.integers(0, 999))
def test_attainable_ranks_are_the_ranks_that_random_cores_reach(layout: Layout, seed: int) -> None:
    """Cores of any ranks make a tensor; the ranks of its unfoldings are what can be attained."""
    generator = np.random.default_rng(seed)
    wanted = tuple(int(rank) for rank in generator.integers(1, 7, layout.cores - 1))
    tensor = np.ones((1, 1))
    for size, (left, right) in zip(layout.sizes, pairwise((1, *wanted, 1)), strict=True):
        tensor = (tensor @ generator.normal(size=(left, size * right))).reshape(-1, right)
    reached = [
        int(np.linalg.matrix_rank(tensor.reshape(prod(layout.sizes[: k + 1]), -1)))
        for k in range(layout.cores - 1)
    ]
    assert layout.attainable(wanted) == tuple(reached)
    assert layout.attainable(layout.full_ranks) == layout.full_ranks


@given(small_layouts(), st.integers(0, 999))
def test_cores_have_as_many_values_as_sizes_and_ranks_say(layout: Layout, seed: int) -> None:
    generator = np.random.default_rng(seed)
    ranks = tuple(int(rank) for rank in generator.integers(1, 7, layout.cores - 1))
    shapes = layout.core_shapes(ranks)
    assert tuple(map(prod, shapes)) == layout.core_params(ranks)
    assert tuple(shape[-1] for shape in shapes[:-1]) == ranks
    assert len(set(layout.core_names)) == len(shapes)


@given(small_layouts())
def test_each_mode_is_in_one_core(layout: Layout) -> None:
    carried = sorted(axis for axes in layout.core_axes for axis in axes)
    assert carried == list(range(len(layout.row_modes) + len(layout.column_modes)))
    assert prod(layout.sizes) == prod(layout.shape)


@given(small_layouts())
def test_cuts_are_prefixes_of_both_sides(layout: Layout) -> None:
    assert [row * column for row, column in layout.cuts] == [
        prod(layout.sizes[: k + 1]) for k in range(layout.cores - 1)
    ]
    assert all(
        layout.shape[0] % row == 0 and layout.shape[1] % column == 0 for row, column in layout.cuts
    )


@pytest.mark.parametrize(
    ("layout", "middle"),
    [
        (MpsLayout((4, 8), (6,)), 1),
        (MpsLayout((32,), (2, 3)), 0),
        (MpoLayout((4, 8), (2, 3)), None),
    ],
    ids=str,
)
def test_the_middle_rank_stands_between_rows_and_columns(
    layout: Layout, middle: int | None
) -> None:
    assert layout.middle == middle
    if middle is not None:
        assert layout.cuts[middle] == (32, 1)


def test_a_lookup_rebuilds_a_row_from_the_rank_in_the_middle() -> None:
    assert MpsLayout((4, 8), (6,)).multiply_adds((4, 3), lookup=True) == 3 * 6
    assert MpoLayout((4, 8, 2), (2, 3, 2)).multiply_adds((4, 7), lookup=True) == 7 * 12
    assert DenseLayout((32,), (6,)).multiply_adds((), lookup=True) == 0


@settings(max_examples=80, deadline=None)
@given(small_layouts(), st.integers(0, 999))
def test_multiply_adds_are_those_of_the_cheapest_order(layout: Layout, seed: int) -> None:
    generator = np.random.default_rng(seed)
    ranks = layout.attainable([int(rank) for rank in generator.integers(1, 5, layout.cores - 1)])
    cores = [generator.normal(size=shape) for shape in layout.core_shapes(ranks)]
    x = generator.normal(size=layout.shape[1])
    found = ORDERS[layout.format](layout, cores, x)
    assert all(np.allclose(y, found[0][0]) for y, _ in found)
    cheapest = min(count for _, count in found)
    assert layout.chain_multiply_adds(ranks) == cheapest
    assert layout.multiply_adds(ranks) == min(cheapest, prod(layout.shape))


class Counter:
    """einsum that counts its multiply-adds: the product of the sizes of all its letters."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, subscripts: str, *operands: np.ndarray) -> np.ndarray:
        letters = subscripts.split("->")[0].split(",")
        sizes = {
            letter: size
            for names, operand in zip(letters, operands, strict=True)
            for letter, size in zip(names, operand.shape, strict=True)
        }
        self.count += prod(sizes.values())
        return np.einsum(subscripts, *operands)


Order = tuple[np.ndarray, int]


def mps_orders(layout: Layout, cores: list[np.ndarray], x: np.ndarray) -> list[Order]:
    """Each half core by core, or merged beforehand (which is not counted) and applied at once."""
    split, found = len(layout.row_modes), []
    for merge_right, merge_left in product((False, True), repeat=2):
        einsum = Counter()
        if merge_right:
            right = merged(cores[split:]).reshape(-1, x.size)
            middle = einsum("rc,c->r", right, x)
        else:
            state = x.reshape(-1, 1)  # (columns pending, rank)
            for core in reversed(cores[split:]):
                pending = state.reshape(-1, core.shape[1], state.shape[1])
                state = einsum("pms,rms->pr", pending, core)
            middle = state.reshape(-1)
        if merge_left:
            left = merged(cores[:split]).reshape(layout.shape[0], -1)
            y = einsum("ar,r->a", left, middle)
        else:
            state = middle.reshape(-1, 1)  # (rank, rows done)
            for core in reversed(cores[:split]):
                state = einsum("rms,sd->rmd", core, state).reshape(core.shape[0], -1)
            y = state.reshape(-1)
        found.append((y, einsum.count))
    return found


def mpo_orders(layout: Layout, cores: list[np.ndarray], x: np.ndarray) -> list[Order]:
    """From the first core to the last, and back."""
    count, found = len(cores), []
    for forward in (True, False):
        einsum = Counter()
        state = x.reshape(1, *layout.column_modes)  # (rank, modes...)
        for k in range(count) if forward else reversed(range(count)):
            core = cores[k] if forward else cores[k].transpose(3, 1, 2, 0)
            moved = np.moveaxis(state, k + 1, 1)
            flat = moved.reshape(*moved.shape[:2], -1)
            joined = einsum("rmcs,rcp->smp", core, flat)
            state = np.moveaxis(joined.reshape(*joined.shape[:2], *moved.shape[2:]), 1, k + 1)
        found.append((state.reshape(-1), einsum.count))
    return found


def dense_orders(layout: Layout, cores: list[np.ndarray], x: np.ndarray) -> list[Order]:
    einsum = Counter()
    return [(einsum("rc,c->r", cores[0], x), einsum.count)]


def kron_orders(layout: Layout, cores: list[np.ndarray], x: np.ndarray) -> list[Order]:
    """The right factors first, or the left ones."""
    first, second = Counter(), Counter()
    vector = x.reshape(layout.column_modes)
    right = second("acr,cd->adr", cores[0], vector), first("rbd,cd->rbc", cores[1], vector)
    ys = second("adr,rbd->ab", right[0], cores[1]), first("rbc,acr->ab", right[1], cores[0])
    return [(ys[0].reshape(-1), second.count), (ys[1].reshape(-1), first.count)]


ORDERS: dict[str, Callable[..., list[Order]]] = {
    "mps": mps_orders,
    "mpo": mpo_orders,
    "dense": dense_orders,
    "kron": kron_orders,
}


def merged(cores: list[np.ndarray]) -> np.ndarray:
    whole = cores[0]
    for core in cores[1:]:
        whole = np.tensordot(whole, core, 1)
    return whole
