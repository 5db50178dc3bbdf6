from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import nn

from ttcompress.layers.matrices import TrainWeight
from ttcompress.layers.products import ChainProduct, DenseProduct, FactorProduct
from ttcompress.trains.train import Train

TrainMaker = Callable[..., Train]


@pytest.fixture
def weight(random_train: TrainMaker) -> TrainWeight:
    torch.manual_seed(0)
    return TrainWeight(random_train("mps", 24, 10, 3)).eval()


def test_it_answers_as_the_dense_parameter_would(weight: TrainWeight) -> None:
    assert weight.shape == torch.Size((24, 10))
    assert (weight.size(), weight.size(1), weight.size(-2)) == (weight.shape, 10, 24)
    assert (weight.dtype, weight.device) == (torch.float64, torch.device("cpu"))
    zeros = weight.new_zeros(2, 3)
    torch.testing.assert_close(zeros, torch.zeros(2, 3, dtype=torch.float64))
    assert not zeros.requires_grad
    assert "mps, row_modes=[4, 6], column_modes=[2, 5], ranks=[3, 3, 3]" in repr(weight)


def test_cores_are_copies(random_train: TrainMaker) -> None:
    train = random_train("mpo", 6, 6, 2)
    before = [core.clone() for core in train.cores]
    weight = TrainWeight(train)
    with torch.no_grad():
        for core in weight.parameters():
            core.zero_()
    assert all(torch.equal(a, b) for a, b in zip(before, train.cores, strict=True))


@pytest.mark.parametrize(
    ("format", "rank", "product"),
    [("mps", 99, FactorProduct), ("mpo", 1, ChainProduct), ("mpo", 99, DenseProduct)],
)
def test_each_format_multiplies_its_own_way(
    random_train: TrainMaker, format: str, rank: int, product: type
) -> None:
    torch.manual_seed(0)
    train = random_train(format, 48, 10, rank)
    x, start = torch.randn(3, 10, dtype=torch.float64), torch.randn(48, dtype=torch.float64)
    expected = x @ train.to_dense().mT
    found = TrainWeight(train).product()
    assert type(found) is product
    out = torch.empty(3, 48, dtype=torch.float64)
    with torch.no_grad():
        for begin, sum_ in ((None, expected), (start, expected + start)):
            torch.testing.assert_close(found(x, begin), sum_)
            found.into(out, x, begin, found.scratch(3))
            torch.testing.assert_close(out, sum_)


def test_what_is_made_is_kept_only_in_evaluation_without_gradients(weight: TrainWeight) -> None:
    assert weight.dense() is not weight.dense()
    with torch.no_grad():
        assert weight.dense() is weight.dense()
        assert weight.product() is weight.product()
        weight.train()
        assert weight.dense() is not weight.dense()
    weight.eval().requires_grad_(False)
    assert weight.dense() is weight.dense()


def _add(weight: TrainWeight) -> None:
    with torch.no_grad():
        weight.cores[0].add_(1)


def _load(weight: TrainWeight) -> None:
    weight.load_state_dict({name: t + 1 for name, t in weight.state_dict().items()})


def _assign(weight: TrainWeight) -> None:
    state = {name: t + 1 for name, t in weight.state_dict().items()}
    weight.load_state_dict(state, assign=True)


def _swap_data(weight: TrainWeight) -> None:
    weight.cores[0].data = weight.cores[0].data + 1


def _train_through_data(weight: TrainWeight) -> None:
    weight.train()
    weight.cores[0].data.add_(1)
    weight.eval()


def _replace_core(weight: TrainWeight) -> None:
    weight.cores[0] = nn.Parameter(weight.cores[0].detach() + 1)


def _to_half(weight: TrainWeight) -> None:
    weight.to(torch.bfloat16)


@pytest.mark.parametrize(
    "change", [_add, _load, _assign, _swap_data, _train_through_data, _replace_core, _to_half]
)
def test_what_is_kept_follows_the_cores(
    weight: TrainWeight, change: Callable[[TrainWeight], None]
) -> None:
    with torch.no_grad():
        x = torch.randn(2, 10, dtype=torch.float64)
        before, product = weight.dense(), weight.product()(x)
        change(weight)
        expected = weight.as_train().to_dense()
        torch.testing.assert_close(weight.dense(), expected)
        torch.testing.assert_close(
            weight.product()(x.to(weight.dtype)), x.to(weight.dtype) @ expected.mT
        )
        assert not torch.equal(before.to(weight.dtype), weight.dense())
        assert not torch.equal(product.to(weight.dtype), weight.product()(x.to(weight.dtype)))


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda w: pickle.loads(pickle.dumps(w))])
def test_copies_carry_cores_and_nothing_made(
    weight: TrainWeight, copier: Callable[[TrainWeight], TrainWeight]
) -> None:
    with torch.no_grad():
        weight.dense(), weight.product()
    copied = copier(weight)
    assert copied._dense is None and copied._product is None
    assert weight._dense is not None
    assert torch.equal(copied.dense(), weight.dense())
    assert copied.state_dict().keys() == {f"cores.{k}" for k in range(4)}


def test_made_in_inference_mode_it_serves_outside(random_train: TrainMaker) -> None:
    with torch.inference_mode():
        weight = TrainWeight(random_train("mps", 12, 10, 2)).eval().requires_grad_(False)
        weight.product(), weight.dense()
    x = torch.randn(2, 10, dtype=torch.float64, requires_grad=True)
    weight.product()(x).sum().backward()
    torch.testing.assert_close(x.grad, weight.dense().sum(0).expand(2, 10))
