import pytest
import torch

from ttcompress.planning.formats import Layout, MpoLayout, MpsLayout
from ttcompress.trains.formats import train_of
from ttcompress.trains.least_squares import alternate, improve
from ttcompress.trains.mpo import MpoTrain
from ttcompress.trains.train import Train

LAYOUTS = (
    MpsLayout((4, 6), (3, 6)),
    MpoLayout((4, 6), (3, 6)),
    MpoLayout((2, 3, 4), (3, 2, 3)),
)


def random_train(layout: Layout, rank: int, seed: int) -> Train:
    generator = torch.Generator().manual_seed(seed)
    ranks = layout.attainable([rank] * (layout.cores - 1))
    shapes = layout.core_shapes(ranks)
    return train_of(layout, tuple(torch.randn(s, generator=generator).double() for s in shapes))


def squared(train: Train, matrix: torch.Tensor) -> float:
    return float((train.to_dense() - matrix).square().sum())


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_no_sweep_makes_it_worse_and_a_train_is_found_again(layout):
    matrix = random_train(layout, 2, seed=0).to_dense()
    train, last = random_train(layout, 4, seed=1), float("inf")
    for _ in range(30):
        train = alternate(train, matrix, lambda error: error, 1)
        now = squared(train, matrix)
        assert now <= last * (1 + 1e-9) + 1e-12 * float(matrix.square().sum())
        last = now
    assert last < 1e-2 * float(matrix.square().sum())


def test_only_the_cores_named_are_changed():
    layout = LAYOUTS[0]
    train = random_train(layout, 3, seed=2)
    matrix = random_train(layout, 3, seed=3).to_dense()
    found = improve(train, matrix, lambda error: error, [1])
    same = [torch.equal(a, b) for a, b in zip(train.cores, found.cores, strict=True)]
    assert same == [True, False, True, True]
    assert squared(found, matrix) < squared(train, matrix)


def test_a_metric_decides_what_is_near():
    layout = LAYOUTS[1]
    matrix = random_train(layout, 6, seed=4).to_dense()
    counts = torch.ones(layout.shape[0], 1).double()
    counts[0] = 1e4
    start = MpoTrain.decompose(matrix, layout, (3,)).train
    found = alternate(start, matrix, lambda error: counts * error, 4)
    first_row = [float((t.to_dense() - matrix)[0].norm()) for t in (start, found)]
    assert first_row[1] < 0.2 * first_row[0]
