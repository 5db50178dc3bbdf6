"""What a train promises, for both formats, against tensorly's reconstruction of the same cores."""

from __future__ import annotations

from itertools import pairwise
from math import prod

import numpy as np
import pytest
import tensorly
import torch
from tensorly.tt_matrix import tt_matrix_to_matrix
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ttcompress.planning.formats import Layout, TrainFormat
from ttcompress.trains.train import Train, matricize, tensorize

PAIRED = [
    ((4, 8), (6, 5)),
    ((5,), (7,)),
    ((2, 3, 5), (4, 2, 3)),
    ((83, 1), (1, 7)),
    ((1, 6), (4, 1)),
    ((3, 1, 2), (1, 5, 1)),
    ((129,), (1,)),
    ((2, 2, 2, 2), (3, 2, 3, 2)),
]
UNPAIRED = [((12,), (3, 4)), ((2, 3, 2), (6,)), ((4, 83), (17,))]


class TrainContract:
    """Inherited once for each format; `oracle` is the matrix by an independent program."""

    format: TrainFormat
    modes: list[tuple[tuple[int, ...], tuple[int, ...]]]

    @staticmethod
    def oracle(train: Train) -> np.ndarray:
        raise NotImplementedError

    @pytest.fixture
    def train(self, modes: tuple[tuple[int, ...], tuple[int, ...]]) -> Train:
        return random_train(Layout(self.format, *modes))

    def test_its_shape_is_the_product_of_its_modes(self, train: Train) -> None:
        rows, columns = prod(train.layout.row_modes), prod(train.layout.column_modes)
        assert train.shape == train.to_dense().shape == (rows, columns)

    def test_neighbouring_cores_share_a_rank_and_the_ends_have_rank_1(self, train: Train) -> None:
        shapes = train.layout.core_shapes(train.ranks)
        assert len(shapes) == len(train.ranks) + 1 == train.layout.cores
        assert shapes[0][0] == shapes[-1][-1] == 1
        assert all(a[-1] == b[0] for a, b in pairwise(shapes))

    def test_its_params_are_the_planned_ones(self, train: Train) -> None:
        assert train.params == sum(core.numel() for core in train.cores)
        assert train.params == sum(train.layout.core_params(train.ranks))

    def test_its_matrix_is_the_oracle_s(self, train: Train) -> None:
        assert close(train.to_dense(), torch.from_numpy(self.oracle(train)))

    @pytest.mark.parametrize("batch", [(), (3,), (2, 0), (2, 3)])
    def test_apply_is_a_product_with_the_matrix(self, train: Train, batch: tuple[int, ...]) -> None:
        x = normal(*batch, train.shape[1])
        found = train.apply(x)
        assert found.shape == (*batch, train.shape[0])
        assert close(found, x @ torch.from_numpy(self.oracle(train)).T)

    def test_gradients_of_apply_are_those_of_the_matrix(self, train: Train) -> None:
        x, weight = normal(3, train.shape[1]), normal(3, train.shape[0])
        leaves = tuple(core.clone().requires_grad_() for core in train.cores)
        trained = Train(train.layout, leaves)
        through_train = torch.autograd.grad((trained.apply(x) * weight).sum(), leaves)
        through_dense = torch.autograd.grad(
            ((x @ trained.to_dense().T) * weight).sum(), leaves, retain_graph=True
        )
        assert all(map(close, through_train, through_dense))
        step = 1e-3 * normal(*leaves[0].shape)
        bumped = Train(train.layout, (leaves[0].detach() + step, *train.cores[1:]))
        change = ((bumped.apply(x) - train.apply(x)) * weight).sum()
        assert change.item() == pytest.approx((through_train[0] * step).sum().item(), rel=1e-9)

    def test_a_tensorized_matrix_comes_back(self, train: Train) -> None:
        matrix = normal(*train.shape)
        tensor = tensorize(matrix, train.layout)
        assert tensor.shape == train.layout.sizes
        assert torch.equal(matricize(tensor, train.layout), matrix)

    def test_cores_that_do_not_chain_are_refused(self, train: Train) -> None:
        if not train.ranks:
            pytest.skip("one core chains with nothing")
        wider = torch.cat([train.cores[0]] * 2, dim=-1)
        with pytest.raises(ValueError, match="cores are"):
            Train(train.layout, (wider, *train.cores[1:]))


@pytest.mark.parametrize("modes", PAIRED + UNPAIRED, ids=str)
class TestMps(TrainContract):
    format: TrainFormat = "mps"

    @staticmethod
    def oracle(train: Train) -> np.ndarray:
        cores = [core.detach().numpy() for core in train.cores]
        return tensorly.tt_to_tensor(cores).reshape(train.shape)

    def test_its_factors_meet_at_the_middle_rank(self, train: Train) -> None:
        left, right = train.factors()
        middle = train.ranks[len(train.layout.row_modes) - 1]
        assert (left.shape, right.shape) == ((train.shape[0], middle), (middle, train.shape[1]))
        assert close(left @ right, torch.from_numpy(self.oracle(train)))


@pytest.mark.parametrize("modes", PAIRED, ids=str)
class TestMpo(TrainContract):
    format: TrainFormat = "mpo"

    @staticmethod
    def oracle(train: Train) -> np.ndarray:
        return tt_matrix_to_matrix([core.detach().numpy() for core in train.cores])

    def test_apply_takes_the_planned_multiply_adds(self, train: Train) -> None:
        if 1 in train.layout.row_modes + train.layout.column_modes:
            pytest.skip("torch multiplies elements there, which its counter does not see")
        assert counted(train) == train.layout.chain_multiply_adds(train.ranks)


@pytest.mark.parametrize(
    ("layout", "ranks", "forward"),
    [
        (Layout("mpo", (2, 16), (16, 2)), (3,), True),
        (Layout("mpo", (16, 2), (2, 16)), (3,), False),
        (Layout("mpo", (8, 4, 2), (2, 4, 8)), (3, 5), False),
    ],
    ids=["from the first core", "from the last core", "from the last core of three"],
)
def test_an_mpo_is_applied_from_the_cheaper_end(
    layout: Layout, ranks: tuple[int, ...], forward: bool
) -> None:
    sweeps = layout.sweep_multiply_adds(ranks), layout.reversed.sweep_multiply_adds(ranks[::-1])
    assert (sweeps[0] < sweeps[1]) is forward
    train = random_train(layout, ranks)
    assert counted(train) == min(sweeps)
    x = normal(3, layout.shape[1])
    assert close(train.apply(x), x @ torch.from_numpy(TestMpo.oracle(train)).T)


def random_train(layout: Layout, ranks: tuple[int, ...] | None = None) -> Train:
    """Seeded cores in float64; without ranks, uneven ones between 2 and 4 where attainable."""
    wanted = ranks or [2 + k % 3 for k in range(layout.cores - 1)]
    shapes = layout.core_shapes(layout.attainable(wanted))
    return Train(layout, tuple(normal(*shape, seed=k) for k, shape in enumerate(shapes)))


def normal(*shape: int, seed: int = 9) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def close(found: Tensor, wanted: Tensor) -> bool:
    return found.shape == wanted.shape and torch.allclose(found, wanted, rtol=1e-12, atol=1e-12)


def counted(train: Train) -> int:
    """Multiply-adds that torch itself counts while one vector goes through."""
    with FlopCounterMode(display=False) as counter:
        train.apply(normal(1, train.shape[1]))
    return counter.get_total_flops() // 2
