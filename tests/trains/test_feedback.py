import pytest
import torch

from ttcompress.planning.formats import MpoLayout, MpsLayout
from ttcompress.stores import STORES
from ttcompress.trains.feedback import round_matrix, round_train
from ttcompress.trains.formats import TRAINS, train_of
from ttcompress.trains.weighting import Weighting

ROWS, COLUMNS = 40, 150  # more columns than one block of corrections


@pytest.fixture
def matrix() -> torch.Tensor:
    return torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def weighting() -> Weighting:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(2000, 20, generator=generator) @ torch.randn(
        20, COLUMNS, generator=generator
    ) + 0.1 * torch.randn(2000, COLUMNS, generator=generator)
    return Weighting.damped(torch.ones(ROWS), inputs.mT @ inputs / 2000)


@pytest.mark.parametrize("store", ["int2", "int3", "int4", "int5"])
def test_feedback_costs_far_less_than_rounding_to_nearest(store, matrix, weighting):
    plain = STORES[store].encode(matrix).values()
    fitted = round_matrix(matrix, STORES[store], weighting.moment).values()
    assert weighting.cost(fitted.double() - matrix) < 0.3 * weighting.cost(plain.double() - matrix)


def test_from_eight_bits_on_rounding_is_plain(matrix, weighting):
    for name in ("int8", "float16"):
        plain, fitted = (
            STORES[name].encode(matrix),
            round_matrix(matrix, STORES[name], weighting.moment),
        )
        assert all(torch.equal(plain.tensors[k], fitted.tensors[k]) for k in plain.tensors)


@pytest.mark.parametrize(
    ("layout", "ranks"),
    [
        (MpsLayout((40,), (150,)), (12,)),
        (MpsLayout((4, 10), (10, 15)), (4, 12, 8)),
        (MpoLayout((4, 10), (10, 15)), (20,)),
    ],
    ids=str,
)
def test_later_cores_make_up_for_the_rounding_of_earlier_ones(layout, ranks, matrix, weighting):
    train = TRAINS[layout.format].decompose(matrix, layout, ranks, weighting).train
    store = STORES["int3"]
    exact = weighting.cost(train.to_dense() - matrix)

    def added(parts) -> float:
        stored = train_of(layout, tuple(part.values().double() for part in parts))
        return weighting.cost(stored.to_dense() - matrix) - exact

    plain = added([store.encode(core) for core in train.cores])
    parts = round_train(train, matrix, store, weighting)
    assert [part.shape for part in parts] == [tuple(core.shape) for core in train.cores]
    assert added(parts) < 0.75 * plain
