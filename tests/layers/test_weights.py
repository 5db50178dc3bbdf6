from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from ttcompress.layers.matrices import TrainWeight
from ttcompress.layers.products import ChainProduct, DenseProduct, FactorProduct
from ttcompress.planning.formats import FORMATS
from ttcompress.trains.formats import train_of
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
    assert (weight.numel(), weight.dim(), weight.ndim, weight.is_cuda) == (240, 2, 2, False)
    assert weight.requires_grad
    weight.requires_grad = False
    assert not (weight.requires_grad or any(core.requires_grad for core in weight.parameters()))
    assert not hasattr(weight, "data")  # a write to it would be lost
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


@pytest.mark.parametrize(("batch", "times"), [(1, 1), (1, 35), (2, 4), (8, 35)])
def test_any_order_of_the_factors_is_the_same_product(
    weight: TrainWeight, batch: int, times: int
) -> None:
    x = torch.randn(batch, 10, dtype=torch.float64)
    with torch.no_grad():
        for frozen in (False, True):
            if frozen:
                weight.freeze()
            found = weight.product(batch, times)(x)
            torch.testing.assert_close(found, x @ weight.as_train().to_dense().mT)


def test_what_is_made_is_kept_only_in_evaluation_without_gradients(weight: TrainWeight) -> None:
    assert weight.dense() is not weight.dense()
    with torch.no_grad():
        assert weight.dense() is weight.dense()
        assert weight.product() is weight.product()
        weight.train()
        assert weight.dense() is not weight.dense()
    weight.eval().requires_grad_(False)
    assert weight.dense() is weight.dense()


def test_what_is_made_of_a_stored_train_is_kept_too(weight: TrainWeight) -> None:
    train = weight.as_train()
    turned = tuple(core.movedim(-1, 0).contiguous().movedim(0, -1) for core in train.cores)
    assert not all(core.is_contiguous() for core in turned)  # as entropy-coded ones are
    of_stored = TrainWeight(replace(train, cores=turned)).eval()
    with torch.no_grad():
        assert of_stored.dense() is of_stored.dense()


def _add(weight: TrainWeight) -> None:
    with torch.no_grad():
        weight.cores[0].add_(1)


def _load(weight: TrainWeight) -> None:
    weight.load_state_dict({name: t + 1 for name, t in weight.state_dict().items()})


def _assign(weight: TrainWeight) -> None:
    state = {name: t + 1 for name, t in weight.state_dict().items()}
    weight.load_state_dict(state, assign=True)


def _assign_in_inference_mode(weight: TrainWeight) -> None:
    with torch.inference_mode():
        _assign(weight)


def _write_in_inference_mode(weight: TrainWeight) -> None:
    with torch.inference_mode():
        weight.cores[1].mul_(2)


def _swap_data(weight: TrainWeight) -> None:
    weight.cores[0].data = weight.cores[0].data + 1


def _write_the_last_value_through_data(weight: TrainWeight) -> None:
    core = weight.cores[len(weight.cores) - 1]
    core.data.view(-1)[-1] += 1


def _train_through_data(weight: TrainWeight) -> None:
    weight.train()
    weight.cores[0].data.add_(1)
    weight.eval()


def _write_by_numpy(weight: TrainWeight) -> None:
    weight.cores[1].detach().numpy()[...] *= 3


def _step_fused(weight: TrainWeight) -> None:
    for core in weight.cores:
        core.grad = torch.ones_like(core)
    torch.optim.Adam(weight.parameters(), lr=0.1, fused=True).step()


def _average(weight: TrainWeight) -> None:
    others = [core + 1 for core in weight.cores]
    torch._foreach_lerp_([core.data for core in weight.cores], others, 0.5)


def _vector(weight: TrainWeight) -> None:
    vector = parameters_to_vector(weight.parameters())
    vector_to_parameters(vector + 1, weight.parameters())


def _write_to_the_vector(weight: TrainWeight) -> None:
    vector = parameters_to_vector(weight.parameters())
    vector_to_parameters(vector, weight.parameters())
    weight.dense(), weight.product()
    vector.data.add_(1)


def _swap_tensors(weight: TrainWeight) -> None:
    other = nn.Parameter(weight.cores[0].detach() + 1)
    torch.utils.swap_tensors(weight.cores[0], other)


def _share(weight: TrainWeight) -> None:
    weight.share_memory()
    weight.dense(), weight.product()
    weight.cores[0].data.add_(1)


def _replace_core(weight: TrainWeight) -> None:
    weight.cores[0] = nn.Parameter(weight.cores[0].detach() + 1)


def _write_to_the_old_memory(weight: TrainWeight) -> None:
    old = weight.cores[0].data
    weight.cores[0].data = old + 1
    old.zero_()


def _to_half(weight: TrainWeight) -> None:
    weight.to(torch.bfloat16)


def _view(weight: TrainWeight) -> None:
    weight.set_views([Doubled() for _ in weight.cores])


def _write_to_a_buffer_of_a_view(weight: TrainWeight) -> None:
    weight.set_views([Doubled() for _ in weight.cores])
    weight.dense(), weight.product(), weight.product(1, 35)
    weight.views[0].factor.data.fill_(7)


class Doubled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("factor", torch.tensor(2.0, dtype=torch.float64))

    def forward(self, core: Tensor) -> Tensor:
        return core * self.factor


CHANGES = [
    _add,
    _load,
    _assign,
    _assign_in_inference_mode,
    _write_in_inference_mode,
    _swap_data,
    _write_the_last_value_through_data,
    _train_through_data,
    _write_by_numpy,
    _step_fused,
    _average,
    _vector,
    _write_to_the_vector,
    _swap_tensors,
    _share,
    _replace_core,
    _write_to_the_old_memory,
    _to_half,
    _view,
    _write_to_a_buffer_of_a_view,
]
KINDS = {"two cores": ("mps", (24,), (10,), 3), "four cores": ("mps", (4, 6), (2, 5), 3)}
KINDS |= {"chain": ("mpo", (4, 12), (2, 5), 1), "rebuilt": ("mpo", (4, 6), (2, 5), 8)}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_every_write_is_seen(
    kind: tuple[str, tuple[int, ...], tuple[int, ...], int],
    change: Callable[[TrainWeight], None],
) -> None:
    torch.manual_seed(0)
    format, rows, columns, rank = kind
    layout = FORMATS[format](rows, columns)
    shapes = layout.core_shapes(layout.attainable((rank,) * (layout.cores - 1)))
    cores = tuple(torch.randn(shape, dtype=torch.float64) for shape in shapes)
    weight = TrainWeight(train_of(layout, cores)).eval()
    x = torch.randn(1, 10, dtype=torch.float64)

    def made() -> list[Tensor]:
        turned = x.to(weight.dtype)
        return [weight.dense(), weight.product()(turned), weight.product(1, 35)(turned)]

    with torch.no_grad():
        before = made()
        change(weight)
        expected = weight.as_train().to_dense()
        product = x.to(weight.dtype) @ expected.mT
        loose = {"rtol": 0.05, "atol": 0.5} if weight.dtype == torch.bfloat16 else {}
        torch.testing.assert_close(made(), [expected, product, product], **loose)
        for old, new in zip(before, made(), strict=True):
            assert not torch.equal(old.to(new.dtype), new)


def test_what_nobody_wrote_is_not_made_again(random_train: TrainMaker) -> None:
    weight = TrainWeight(random_train("mps", 24, 10, 3)).eval()
    with torch.no_grad():
        weight.cores[0][0, 0, 0] = torch.nan  # not equal to itself, but the same bytes
        assert weight.dense() is weight.dense()


def test_frozen_nothing_is_made_again_until_training(weight: TrainWeight) -> None:
    weight.freeze()
    assert not any(core.requires_grad for core in weight.cores)
    made, product = weight.dense(), weight.product()  # with gradients enabled
    weight.cores[0].data.add_(1)  # the promise is broken, and not noticed
    assert weight.dense() is made
    assert weight.product() is product
    weight.eval()
    assert weight.dense() is made
    weight.train().eval()
    assert weight.dense() is not made
    with torch.no_grad():
        torch.testing.assert_close(weight.dense(), weight.as_train().to_dense())
        kept = weight.dense()
        weight.cores[0].data.add_(1)
        assert weight.dense() is not kept


@pytest.mark.parametrize("change", [_load, _assign, _to_half, _replace_core, _swap_data])
def test_frozen_weights_may_be_loaded_and_moved(
    weight: TrainWeight, change: Callable[[TrainWeight], None]
) -> None:
    weight.freeze()
    before = weight.dense()
    change(weight)
    weight.requires_grad_(False)
    torch.testing.assert_close(weight.dense(), weight.as_train().to_dense())
    assert not torch.equal(before.to(weight.dtype), weight.dense())


def test_frozen_weights_that_require_gradients_again_get_them(weight: TrainWeight) -> None:
    weight.freeze()
    weight.dense()
    weight.requires_grad = True
    weight.dense().sum().backward()
    assert weight.cores[0].grad is not None


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda w: pickle.loads(pickle.dumps(w))])
def test_copies_carry_cores_and_nothing_else(
    weight: TrainWeight, copier: Callable[[TrainWeight], TrainWeight]
) -> None:
    weight.freeze()
    sizes = len(pickle.dumps(weight))
    made = weight.dense(), weight.product()
    assert len(pickle.dumps(weight)) == sizes
    copied = copier(weight)
    assert weight.dense() is made[0]
    with torch.no_grad():
        assert torch.equal(copied.dense(), weight.dense())
        copied.cores[0].data.add_(1)  # the copy promised nothing
        torch.testing.assert_close(copied.dense(), copied.as_train().to_dense())
    assert copied.state_dict().keys() == {f"cores.{k}" for k in range(4)}


def test_made_in_inference_mode_it_serves_outside(random_train: TrainMaker) -> None:
    with torch.inference_mode():
        weight = TrainWeight(random_train("mps", 12, 10, 2)).eval().requires_grad_(False)
        weight.product(), weight.dense()
    x = torch.randn(2, 10, dtype=torch.float64, requires_grad=True)
    weight.product()(x).sum().backward()
    torch.testing.assert_close(x.grad, weight.dense().sum(0).expand(2, 10))


@pytest.mark.parametrize("frozen", [False, True])
def test_made_under_autocast_it_is_exact_outside(weight: TrainWeight, frozen: bool) -> None:
    weight.float()
    if frozen:
        weight.freeze()
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            weight.dense(), weight.product(1, 35)
        expected = weight.as_train().to_dense()
        assert weight.dense().dtype == torch.float32
        torch.testing.assert_close(weight.dense(), expected)
        x = torch.randn(2, 10)
        torch.testing.assert_close(weight.product(1, 35)(x), x @ expected.mT)


def test_other_tensors_in_the_place_of_the_cores_are_used(weight: TrainWeight) -> None:
    weight.freeze()
    weight.dense()

    def norm(cores: dict[str, Tensor]) -> Tensor:
        matrix: Tensor = torch.func.functional_call(Dense(weight), cores)
        return matrix.square().sum()

    cores = {f"weight.cores.{k}": core.detach() for k, core in enumerate(weight.cores)}
    doubled = cores | {"weight.cores.0": 2 * cores["weight.cores.0"]}
    torch.testing.assert_close(norm(doubled), 4 * norm(cores))
    stacked = {name: torch.stack([cores[name], doubled[name]]) for name in cores}
    batched = torch.vmap(norm)(stacked)
    torch.testing.assert_close(batched, torch.stack([norm(cores), norm(doubled)]))
    gradients = torch.func.grad(norm)(cores)
    total = sum((g * cores[name]).sum() for name, g in gradients.items())
    torch.testing.assert_close(total, 8 * norm(cores))  # of degree two in each of four cores


class Dense(nn.Module):
    def __init__(self, weight: TrainWeight) -> None:
        super().__init__()
        self.weight = weight

    def forward(self) -> Tensor:
        return self.weight.dense()
