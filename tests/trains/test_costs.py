"""A value costs what changing it alone changes the weighted error by."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ttcompress.planning.formats import DenseLayout, MpoLayout, MpsLayout
from ttcompress.stores.store import from_grid
from ttcompress.trains.costs import core_costs
from ttcompress.trains.formats import TRAINS
from ttcompress.trains.train import Train
from ttcompress.trains.weighting import Weighting

ROWS, COLUMNS = 24, 18
TRAINS_TO_TRY = {
    "dense": (DenseLayout((24,), (18,)), ()),
    "two cores": (MpsLayout((24,), (18,)), (5,)),
    "rank one": (MpsLayout((24,), (18,)), (1,)),
    "three cores": (MpsLayout((4, 6), (18,)), (3, 5)),
    "split columns": (MpsLayout((24,), (3, 6)), (5, 4)),
    "MPO": (MpoLayout((4, 6), (3, 6)), (5,)),
    "long MPO": (MpoLayout((2, 3, 4), (3, 2, 3)), (4, 5)),
}
every_train = pytest.mark.parametrize("kind", TRAINS_TO_TRY)


def train_of(kind: str, weighting: Weighting | None = None) -> Train:
    layout, ranks = TRAINS_TO_TRY[kind]
    matrix = torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(0))
    return TRAINS[layout.format].decompose(matrix, layout, ranks, weighting).train


def measured(train: Train, weighting: Weighting | None, index: int) -> Tensor:
    """The cost of adding 1 to each value of a core alone, in the shape of the core."""
    cores, dense = train.double().cores, train.double().to_dense()
    found = torch.empty(cores[index].numel(), dtype=torch.float64)
    for place in range(len(found)):
        core = cores[index].clone(memory_format=torch.contiguous_format)
        core.view(-1)[place] += 1
        changed = replace(train, cores=(*cores[:index], core, *cores[index + 1 :]))
        error = changed.to_dense() - dense
        found[place] = error.square().sum() if weighting is None else weighting.cost(error)
    return found.reshape(cores[index].shape)


def said(train: Train, weighting: Weighting | None, index: int) -> Tensor:
    costs = core_costs(train, weighting)[index]
    grid = costs.components[:, None].double() * costs.places
    return from_grid(grid, tuple(train.cores[index].shape))


def weighting_of(rows: Tensor, moment: Tensor) -> Weighting:
    return Weighting(rows.double(), moment.double())


def mixed() -> Tensor:
    inputs = torch.randn(40, COLUMNS, generator=torch.Generator().manual_seed(2)).double()
    return inputs.mT @ inputs / 40


@every_train
def test_without_a_weighting_every_value_costs_what_it_changes(kind: str) -> None:
    train = train_of(kind)
    for index in range(len(train.cores)):
        torch.testing.assert_close(said(train, None, index), measured(train, None, index))


@every_train
def test_where_all_inputs_and_rows_count_alike_so_do_costs(kind: str) -> None:
    alike = weighting_of(torch.full((ROWS,), 3.0), 5 * torch.eye(COLUMNS))
    train = train_of(kind, alike)
    for index in range(len(train.cores)):
        torch.testing.assert_close(said(train, alike, index), measured(train, alike, index))


def test_errors_of_a_left_factor_count_by_row_and_by_the_inputs_that_reach_them() -> None:
    rows = torch.logspace(-1, 1, ROWS)
    weighting = weighting_of(rows, mixed())
    train = train_of("two cores", weighting)
    torch.testing.assert_close(said(train, weighting, 0), measured(train, weighting, 0))


@pytest.mark.parametrize("kind", ["dense", "two cores"])
def test_errors_of_what_inputs_meet_count_by_their_mean(kind: str) -> None:
    """Inputs that do not vary together cannot compensate for each other."""
    variances = torch.logspace(-1, 1, COLUMNS)
    weighting = weighting_of(torch.logspace(-1, 1, ROWS), torch.diag(variances))
    train = train_of(kind, weighting)
    last = len(train.cores) - 1
    ours, means = said(train, weighting, last), measured(train, weighting, last).mean(1)
    for column in range(COLUMNS):
        torch.testing.assert_close(ours[:, column], means)


def test_inputs_that_compensate_for_each_other_lower_the_cost() -> None:
    weighting = weighting_of(torch.ones(ROWS), mixed())
    train = train_of("dense", weighting)
    assert said(train, weighting, 0).mean() < 0.8 * measured(train, weighting, 0).mean()


def test_in_long_trains_rows_count_by_their_mean() -> None:
    weighting = weighting_of(torch.linspace(0.5, 1.5, ROWS), torch.eye(COLUMNS))
    train = train_of("long MPO", weighting)
    for index in range(len(train.cores)):
        ours, really = said(train, weighting, index), measured(train, weighting, index)
        ratios = ours / really  # the rows count from 0.5 to 1.5, and 1 in the mean
        assert 1 / 1.5 <= float(ratios.min()) <= float(ratios.max()) <= 1 / 0.5
