"""What a train promises, for every format, against the reference of the same cores."""

from __future__ import annotations

from itertools import product
from math import prod

import pytest
import torch
from kron_layout import KronLayout
from kron_train import KronTrain
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ttcompress.planning.formats import FORMATS, Layout, MpoLayout
from ttcompress.trains.formats import TRAINS, train_of
from ttcompress.trains.train import Train
from ttcompress.trains.tt_svd import matricize, tensorize
from ttcompress.trains.weighting import Weighting

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


def random_train(layout: Layout, ranks: tuple[int, ...] | None = None) -> Train:
    """Seeded cores in float64; without ranks, uneven ones between 2 and 4 where attainable."""
    wanted = ranks or [2 + k % 3 for k in range(layout.cores - 1)]
    shapes = layout.core_shapes(layout.attainable(wanted))
    return train_of(layout, tuple(normal(*shape, seed=k) for k, shape in enumerate(shapes)))


def normal(*shape: int, seed: int = 9) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def trains() -> list[Train]:
    """Of every format, with all modes above that make a layout of it."""
    found = []
    for name, modes in product(FORMATS, PAIRED + UNPAIRED):
        layout = FORMATS[name](*modes)
        try:
            assert layout.core_axes
        except ValueError:
            continue
        found.append(random_train(layout))
    return found


def named(train: Train) -> str:
    return f"{train.layout.format}-{train.layout.row_modes}-{train.layout.column_modes}"


def test_both_registries_have_the_same_formats() -> None:
    assert list(TRAINS) == list(FORMATS)


class TrainContract:
    """What every format promises; `train` is one of them."""

    def test_its_shape_is_the_product_of_its_modes(self, train: Train) -> None:
        rows, columns = prod(train.layout.row_modes), prod(train.layout.column_modes)
        assert train.shape == train.to_dense().shape == (rows, columns)

    def test_the_last_axis_of_each_core_but_the_last_is_its_rank(self, train: Train) -> None:
        shapes = train.layout.core_shapes(train.ranks)
        assert len(shapes) == len(train.ranks) + 1 == train.layout.cores
        assert tuple(shape[-1] for shape in shapes[:-1]) == train.ranks

    def test_its_params_are_the_planned_ones(self, train: Train) -> None:
        assert train.params == sum(core.numel() for core in train.cores)
        assert train.params == sum(train.layout.core_params(train.ranks))

    def test_its_matrix_is_the_reference_s(self, train: Train) -> None:
        assert close(train.to_dense(), train.reference())

    @pytest.mark.parametrize("batch", [(), (3,), (2, 0), (2, 3)])
    def test_apply_is_a_product_with_the_matrix(self, train: Train, batch: tuple[int, ...]) -> None:
        x = normal(*batch, train.shape[1])
        found = train.apply(x)
        assert found.shape == (*batch, train.shape[0])
        assert close(found, x @ train.reference().T)

    def test_gradients_of_apply_are_those_of_the_matrix(self, train: Train) -> None:
        x, weight = normal(3, train.shape[1]), normal(3, train.shape[0])
        leaves = tuple(core.clone().requires_grad_() for core in train.cores)
        trained = train_of(train.layout, leaves)
        through_train = torch.autograd.grad((trained.apply(x) * weight).sum(), leaves)
        through_dense = torch.autograd.grad(
            ((x @ trained.to_dense().T) * weight).sum(), leaves, retain_graph=True
        )
        assert all(map(close, through_train, through_dense))
        step = 1e-3 * normal(*leaves[0].shape)
        bumped = train_of(train.layout, (leaves[0].detach() + step, *train.cores[1:]))
        change = ((bumped.apply(x) - train.apply(x)) * weight).sum()
        assert change.item() == pytest.approx((through_train[0] * step).sum().item(), rel=1e-9)

    def test_blocks_are_the_matrix_from_its_top(self, train: Train) -> None:
        assert close(torch.cat(list(train.blocks())), train.reference())

    def test_rows_are_those_of_the_matrix(self, train: Train) -> None:
        indices = torch.tensor([0, train.shape[0] - 1, 0])
        assert close(train.rows(indices), train.reference()[indices])
        for outside in (-1, train.shape[0]):
            with pytest.raises(IndexError):
                train.rows(torch.tensor([outside]))

    def test_factors_make_the_matrix_and_meet_at_the_middle_rank(self, train: Train) -> None:
        factors, middle = train.factors(), train.layout.middle
        assert (factors is None) == (middle is None)
        if factors is not None and middle is not None:
            assert factors[0].shape[1] == train.ranks[middle]
            assert close(factors[0] @ factors[1], train.reference())

    def test_the_matrix_is_linear_in_each_core(self, train: Train) -> None:
        error = normal(*train.shape, seed=1)
        for index, core in enumerate(train.cores):
            forward, adjoint = train.around(index)
            assert close(forward(core), train.to_dense())
            other = normal(*core.shape, seed=2)
            one, two = (forward(other) * error).sum(), (other * adjoint(error)).sum()
            assert one.item() == pytest.approx(two.item(), rel=1e-9, abs=1e-9)

    def test_nothing_is_lost_at_full_rank(self, train: Train) -> None:
        matrix, layout = normal(*train.shape), train.layout
        found = TRAINS[layout.format].decompose(matrix, layout, layout.full_ranks).train
        assert (type(found), found.ranks) == (type(train), layout.full_ranks)
        assert torch.allclose(found.to_dense(), matrix, atol=1e-12)

    def test_its_own_matrix_is_found_again_at_its_ranks(self, train: Train) -> None:
        matrix, layout = train.to_dense(), train.layout
        found = TRAINS[layout.format].decompose(matrix, layout, train.ranks)
        assert found.train.ranks == train.ranks
        assert torch.allclose(found.train.to_dense(), matrix, rtol=1e-10, atol=1e-10)
        assert len(found.spectra) == len(train.ranks)
        for spectrum, rank in zip(found.spectra, train.ranks, strict=True):
            assert spectrum.tail(rank) <= 1e-20 * spectrum.energy

    def test_a_weighting_never_makes_it_cost_more(self, train: Train) -> None:
        rows, columns = train.shape
        inputs = normal(3 * columns, columns, seed=4)
        weighting = Weighting.damped(normal(rows, seed=5).square(), inputs.mT @ inputs)
        matrix, layout = normal(rows, columns), train.layout
        lost = [
            weighting.cost(kept.to_dense() - matrix)
            for kept in (
                TRAINS[layout.format].decompose(matrix, layout, train.ranks, given).train
                for given in (None, weighting)
            )
        ]
        assert lost[1] <= lost[0] * (1 + 1e-9) + 1e-12

    def test_it_stays_of_its_format_in_float64(self, train: Train) -> None:
        narrow = train_of(train.layout, [core.float() for core in train.cores])
        assert {core.dtype for core in narrow.double().cores} == {torch.float64}
        assert type(narrow.double()) is type(train)

    def test_cores_of_another_shape_are_refused(self, train: Train) -> None:
        wider = torch.cat([train.cores[0]] * 2, dim=-1)
        with pytest.raises(ValueError, match="cores are"):
            train_of(train.layout, (wider, *train.cores[1:]))


@pytest.mark.parametrize("train", trains(), ids=named)
class TestEveryFormat(TrainContract):
    """Over the registries."""


KRONS = [KronLayout((4, 8), (6, 5)), KronLayout((83, 1), (1, 7)), KronLayout((2, 3), (1, 4))]


@pytest.mark.parametrize("layout", KRONS, ids=str)
class TestAToyFormat(TrainContract):
    """One that answers what it must and no more: the rest is what `Train` makes of that."""

    @pytest.fixture
    def train(self, layout: KronLayout, monkeypatch: pytest.MonkeyPatch) -> Train:
        monkeypatch.setitem(TRAINS, "kron", KronTrain)
        return random_train(layout)


@pytest.mark.parametrize("train", trains(), ids=named)
def test_a_tensorized_matrix_comes_back(train: Train) -> None:
    matrix = normal(*train.shape)
    tensor = tensorize(matrix, train.layout)
    assert tensor.shape == train.layout.sizes
    assert torch.equal(matricize(tensor, train.layout), matrix)


@pytest.mark.parametrize("modes", PAIRED, ids=str)
def test_an_mpo_is_applied_in_the_planned_multiply_adds(
    modes: tuple[tuple[int, ...], tuple[int, ...]],
) -> None:
    if 1 in modes[0] + modes[1]:
        pytest.skip("torch multiplies elements there, which its counter does not see")
    train = random_train(MpoLayout(*modes))
    assert counted(train) == train.layout.chain_multiply_adds(train.ranks)


@pytest.mark.parametrize(
    ("layout", "ranks", "forward"),
    [
        (MpoLayout((2, 16), (16, 2)), (3,), True),
        (MpoLayout((16, 2), (2, 16)), (3,), False),
        (MpoLayout((8, 4, 2), (2, 4, 8)), (3, 5), False),
    ],
    ids=["from the first core", "from the last core", "from the last core of three"],
)
def test_an_mpo_is_applied_from_the_cheaper_end(
    layout: MpoLayout, ranks: tuple[int, ...], forward: bool
) -> None:
    sweeps = layout.sweep_multiply_adds(ranks), layout.reversed.sweep_multiply_adds(ranks[::-1])
    assert (sweeps[0] < sweeps[1]) is forward
    train = random_train(layout, ranks)
    assert counted(train) == min(sweeps)
    x = normal(3, layout.shape[1])
    assert close(train.apply(x), x @ train.reference().T)


def close(found: Tensor, wanted: Tensor) -> bool:
    return found.shape == wanted.shape and torch.allclose(found, wanted, rtol=1e-12, atol=1e-12)


def counted(train: Train) -> int:
    """Multiply-adds that torch itself counts while one vector goes through."""
    with FlopCounterMode(display=False) as counter:
        train.apply(normal(1, train.shape[1]))
    return counter.get_total_flops() // 2
