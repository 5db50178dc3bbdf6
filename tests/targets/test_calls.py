"""The inputs that an export is checked with: of other sizes than the example, and like it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ttcompress.errors import RecipeError
from ttcompress.targets.calls import Call

X = torch.zeros(3, 5, 6)
BOTH, BATCH = {0: "batch", 1: "time"}, {0: "batch"}


def inputs(beside: Tensor, axes: dict[int, str], time: int, batch: int) -> tuple[Tensor, Tensor]:
    x, other = Call((X, beside), (BOTH, axes), ("x", "other"), ()).random_inputs(
        {"time": time, "batch": batch}, seed=0
    )
    assert x.shape == (batch, time, 6) and x.std() > 0.5
    assert other.dtype == beside.dtype
    return x, other


@pytest.mark.parametrize("time", [1, 2, 7, 20])
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("example", [[5, 3, 4], [3, 5, 1], [5, 4, 3], [5, 5, 5]])
def test_lengths_stay_within_the_time_axis_and_one_fills_it(time, batch, example) -> None:
    _, lengths = inputs(torch.tensor(example), BATCH, time, batch)
    assert lengths.shape == (batch,) and lengths.min() >= 1 and lengths.max() == time
    if example == sorted(example, reverse=True):  # pack_padded_sequence wants them so
        assert (lengths.diff() <= 0).all()


@pytest.mark.parametrize("time", [1, 2, 7, 20])
@pytest.mark.parametrize(
    ("example", "axes"), [([4, 0, 2], BATCH), ([[0, 4], [1, 3], [2, 2]], BATCH), (0, {})]
)
def test_positions_are_on_the_time_axis(time, example, axes) -> None:
    _, places = inputs(torch.tensor(example), axes, time, 4)
    assert places.min() >= 0 and places.max() < time


@pytest.mark.parametrize("time", [1, 7, 20])
@pytest.mark.parametrize("example", [[3, 1, 2], [0, 3, 1], [70, 3, 99]])
def test_numbers_of_something_else_never_exceed_the_examples(time, example) -> None:
    _, found = inputs(torch.tensor(example), BATCH, time, 4)
    assert found.max() <= max(example) and found.min() >= min(example)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32, torch.uint8])
def test_masks_keep_their_form(dtype) -> None:
    mask = (torch.arange(5) < torch.tensor([[5], [2], [4]])).to(dtype)
    _, found = inputs(mask, BOTH, 20, 6)
    assert found.shape == (6, 20)
    assert set(found.double().unique().tolist()) == {0, 1}
    assert (found.double().diff(dim=1) <= 0).all() and found[0].all()


def test_an_additive_mask_keeps_its_values() -> None:
    mask = torch.zeros(3, 5).masked_fill(torch.arange(5) > 2, -torch.inf)
    _, found = inputs(mask, BOTH, 7, 4)
    assert set(found.unique().tolist()) == {0, -torch.inf}


@pytest.mark.parametrize("example", [torch.zeros(3, 5), torch.ones(3, 5), torch.rand(3, 5)])
def test_other_floats_are_random(example) -> None:
    assert len(inputs(example, BOTH, 7, 4)[1].unique()) == 28


def test_symbols_are_those_of_the_example() -> None:
    words = torch.tensor([[9, 0, 7], [9, 9, 1], [3, 9, 0]])
    call = Call((words,), (BOTH,), ("words",), ())
    (found,) = call.random_inputs({"time": 20, "batch": 4}, seed=0)
    assert found.shape == (4, 20) and set(found.unique().tolist()) <= {0, 1, 3, 7, 9}


def test_lengths_belong_to_the_axis_that_they_fill() -> None:
    example = (X, torch.zeros(3, 7, 2), torch.tensor([7, 2, 3]), torch.tensor([1, 5, 2]))
    axes = (BOTH, {0: "batch", 1: "other"}, BATCH, BATCH)
    call = Call(example, axes, ("x", "y", "m", "n"), ())
    _, _, other, own = call.random_inputs({"time": 2, "other": 30, "batch": 3}, seed=0)
    assert other.max() == 30 and own.max() == 2


@given(st.lists(st.integers(1, 5), min_size=3, max_size=3), st.integers(1, 40), st.integers(1, 9))
def test_no_length_is_out_of_reach(example, time, batch) -> None:
    _, lengths = inputs(torch.tensor(example), BATCH, time, batch)
    assert lengths.min() >= 1 and lengths.max() <= time


@pytest.mark.parametrize(
    ("shape", "axes", "fact"),
    [
        ((1, 5, 6), BOTH, r"axis 0 of x shall be free \(batch\), but has size 1"),
        ((3, 1, 6), BOTH, r"axis 1 of x shall be free \(time\), but has size 1"),
        ((0, 5, 6), BOTH, "size 0"),
        ((3,), BOTH, "no such axis"),
    ],
)
def test_a_free_axis_that_the_example_hides_is_refused(shape, axes, fact) -> None:
    with pytest.raises(RecipeError, match=fact):
        Call((torch.zeros(shape),), (axes,), ("x",), ())
