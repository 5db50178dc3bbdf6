import pytest
import torch

from ttcompress.planning.formats import MpoLayout, MpsLayout
from ttcompress.trains.formats import TRAINS
from ttcompress.trains.train import Train
from ttcompress.trains.tt_svd import spectrum_at
from ttcompress.trains.weighting import Weighting, weighted_factorize

ROWS, COLUMNS = 24, 18
LAYOUTS = (
    (MpsLayout((24,), (18,)), (5,)),
    (MpsLayout((4, 6), (18,)), (4, 5)),
    (MpsLayout((4, 6), (3, 6)), (4, 6, 4)),
    (MpoLayout((4, 6), (3, 6)), (5,)),
    (MpoLayout((2, 3, 4), (3, 2, 3)), (4, 5)),
)


@pytest.fixture
def matrix() -> torch.Tensor:
    return torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def weighting() -> Weighting:
    generator = torch.Generator().manual_seed(1)
    mixing = torch.randn(COLUMNS, COLUMNS, generator=generator)
    inputs = torch.randn(500, COLUMNS, generator=generator) @ mixing + 1.0
    rows = torch.rand(ROWS, generator=generator)
    return Weighting.damped(rows, inputs.mT @ inputs / 500)


def cost(train: Train, matrix: torch.Tensor, weighting: Weighting) -> float:
    return weighting.cost(train.to_dense() - matrix.double())


@pytest.mark.parametrize(("layout", "ranks"), LAYOUTS, ids=str)
def test_a_weighted_train_costs_less_than_the_plain_one(layout, ranks, matrix, weighting):
    plain = TRAINS[layout.format].decompose(matrix, layout, ranks).train
    weighted = TRAINS[layout.format].decompose(matrix, layout, ranks, weighting).train
    assert weighted.ranks == plain.ranks
    assert cost(weighted, matrix, weighting) < 0.9 * cost(plain, matrix, weighting)


def test_with_two_cores_the_cost_is_the_tail_of_the_weighted_spectrum(matrix, weighting):
    layout = MpsLayout((24,), (18,))
    spectrum = weighted_factorize(matrix, (24, 1), weighting).spectrum
    train = TRAINS[layout.format].decompose(matrix, layout, (7,), weighting).train
    assert cost(train, matrix, weighting) == pytest.approx(spectrum.tail(7), rel=1e-6)
    assert spectrum.energy == pytest.approx(weighting.cost(matrix.double()), rel=1e-6)


@pytest.mark.parametrize(("layout", "ranks"), LAYOUTS, ids=str)
def test_where_all_errors_count_alike_the_plain_train_is_found(layout, ranks, matrix):
    alike = Weighting(torch.ones(ROWS).double(), torch.eye(COLUMNS).double())
    plain = TRAINS[layout.format].decompose(matrix, layout, ranks).train
    weighted = TRAINS[layout.format].decompose(matrix, layout, ranks, alike).train
    assert cost(weighted, matrix, alike) <= cost(plain, matrix, alike) * (1 + 1e-6)


def test_cuts_that_split_the_columns_are_weighed_by_the_diagonal(matrix, weighting):
    found = weighted_factorize(matrix, (4, 3), weighting).spectrum
    scaled = weighting.rows.sqrt()[:, None] * matrix * weighting.moment.diagonal().sqrt()
    assert found.values == pytest.approx(spectrum_at(scaled, (4, 3)).values)


def test_what_was_never_seen_is_not_free():
    unseen = Weighting.damped(torch.tensor([1.0, 0.0]), torch.diag(torch.tensor([2.0, 0.0])))
    assert float(unseen.rows[1]) > 0
    assert float(unseen.moment[1, 1]) > 0


def test_inputs_that_were_all_zero_give_a_usable_weighting():
    nothing = Weighting.damped(torch.ones(3), torch.zeros(4, 4))
    assert torch.isfinite(nothing.roots[1]).all()
