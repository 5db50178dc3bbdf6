from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ttcompress.errors import ArtifactError
from ttcompress.layers import Embedding, Linear, replace_layer
from ttcompress.trains.train import Train

FLOAT64 = torch.float64
CLOSE = {"rtol": 1e-10, "atol": 1e-12}
RUNS = pytest.mark.parametrize("run", ["auto", "factored", "rebuilt"])
TRAINS = pytest.mark.parametrize(("format", "rank"), [("mps", 10_000), ("mpo", 1), ("mpo", 9)])


def core_gradients_agree(
    dense: nn.Module,
    layer: nn.Module,
    trains: dict[str, Train],
    core_gradients: Callable[..., dict[str, Tensor]],
) -> None:
    expected = core_gradients(trains, dense)
    expected |= {name: p.grad for name, p in dense.named_parameters() if name not in trains}
    found = {name: p.grad for name, p in layer.named_parameters()}
    torch.testing.assert_close(found, expected, **CLOSE)


@RUNS
@TRAINS
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(8,), (3, 8), (2, 0, 8), (2, 5, 8)])
def test_linear_of_a_train_is_the_dense_linear(
    format: str,
    rank: int,
    run: str,
    bias: bool,
    shape: tuple[int, ...],
    with_trains: Callable[..., dict[str, Train]],
    core_gradients: Callable[..., dict[str, Tensor]],
) -> None:
    torch.manual_seed(0)
    dense = nn.Linear(8, 15, bias=bias, dtype=FLOAT64)
    trains = with_trains(dense, format, rank)
    layer = replace_layer(dense, trains)
    layer.run = run
    x = torch.randn(shape, dtype=FLOAT64)
    for module in (dense, layer):
        (module(x) ** 2).sum().backward()
    torch.testing.assert_close(layer(x), dense(x), **CLOSE)
    core_gradients_agree(dense, layer, trains, core_gradients)
    layer.eval()
    with torch.no_grad():
        for _ in range(2):
            torch.testing.assert_close(layer(x), dense(x), **CLOSE)


EMBEDDINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "padding": {"padding_idx": 3},
    "padding from the end": {"padding_idx": -1},
    "capped": {"max_norm": 0.5},
    "capped, another norm": {"max_norm": 0.7, "norm_type": 1.0},
    "by frequency": {"scale_grad_by_freq": True},
}


@RUNS
@TRAINS
@pytest.mark.parametrize("shape", [(), (4,), (3, 2), (60,)])
@pytest.mark.parametrize("options", EMBEDDINGS.values(), ids=EMBEDDINGS.keys())
def test_embedding_of_a_train_is_the_dense_embedding(
    options: dict[str, Any],
    shape: tuple[int, ...],
    format: str,
    rank: int,
    run: str,
    with_trains: Callable[..., dict[str, Train]],
    core_gradients: Callable[..., dict[str, Tensor]],
) -> None:
    torch.manual_seed(0)
    dense = nn.Embedding(24, 10, dtype=FLOAT64, **options)
    trains = with_trains(dense, format, rank)
    layer = replace_layer(dense, trains)
    layer.run = run
    indices = torch.randint(0, 24, shape)
    found, expected = layer(indices), dense(indices)
    torch.testing.assert_close(found, expected, **CLOSE)
    if "max_norm" not in options:  # torch overwrites its table, and with it the chain rule
        (found**2).sum().backward()
        (expected**2).sum().backward()
        core_gradients_agree(dense, layer, trains, core_gradients)


@settings(max_examples=60, deadline=None)
@given(
    format=st.sampled_from(["mps", "mpo"]),
    rows=st.integers(1, 40),
    columns=st.integers(1, 20),
    rank=st.integers(1, 6),
    data=st.data(),
)
def test_every_row_can_be_looked_up(
    random_train: Callable[..., Train],
    format: str,
    rows: int,
    columns: int,
    rank: int,
    data: st.DataObject,
) -> None:
    train = random_train(format, rows, columns, rank)
    embedding = Embedding(train, run="factored")
    indices = torch.tensor(data.draw(st.lists(st.integers(0, rows - 1), max_size=8)), dtype=int)
    torch.testing.assert_close(embedding(indices), train.to_dense()[indices], **CLOSE)


@pytest.mark.parametrize("index", [-1, 24, 1000])
@pytest.mark.parametrize("run", ["factored", "rebuilt"])
def test_an_index_out_of_range_is_an_error(
    random_train: Callable[..., Train], run: Any, index: int
) -> None:
    with pytest.raises(IndexError):
        Embedding(random_train("mps", 24, 6, 2), run=run)(torch.tensor([index]))


def test_a_lookup_makes_no_table(
    random_train: Callable[..., Train], largest_result: Callable[[Callable[[], object]], int]
) -> None:
    embedding = Embedding(random_train("mps", 24, 6, 2)).eval()
    with torch.no_grad():
        assert largest_result(lambda: embedding(torch.tensor([1, 2]))) < 24 * 6
        assert largest_result(lambda: embedding(torch.arange(24))) == 24 * 6
    assert embedding.how(2) == "factored"
    assert embedding.how(24) == "rebuilt"


def test_a_tied_weight_stays_one(random_train: Callable[..., Train]) -> None:
    train = random_train("mps", 24, 6, 2)
    model = nn.ModuleDict({"in": Embedding(train), "out": Linear(train)})
    model["out"].weight = model["in"].weight
    assert sum(p.numel() for p in model.parameters()) == train.params


def test_a_narrow_linear_multiplies_by_its_factors_and_a_full_one_does_not(
    random_train: Callable[..., Train],
) -> None:
    narrow = Linear(random_train("mps", 1024, 512, 8)).eval()
    full = Linear(random_train("mps", 64, 64, 10_000)).eval()
    with torch.no_grad():
        assert (narrow.how(32), full.how(32)) == ("factored", "rebuilt")


def test_a_weight_that_does_not_fit_is_refused(random_train: Callable[..., Train]) -> None:
    with pytest.raises(ArtifactError, match=r"weight is \(6, 4\), but the layer needs \(5, 4\)"):
        replace_layer(nn.Linear(4, 5), {"weight": random_train("mps", 6, 4, 2)})
    with pytest.raises(ArtifactError, match="weight is not a train"):
        replace_layer(nn.Embedding(5, 4), {"weight": torch.zeros(5, 4)})
    with pytest.raises(ArtifactError, match="bias is a train"):
        replace_layer(nn.Linear(4, 6), {"bias": random_train("mps", 6, 4, 2)})
    with pytest.raises(ArtifactError, match="a Conv1d cannot hold trains: weight"):
        replace_layer(nn.Conv1d(4, 6, 1), {"weight": random_train("mps", 6, 4, 2)})


@pytest.mark.parametrize("format", ["mps", "mpo"])
def test_both_export_with_a_free_batch_and_compile(
    random_train: Callable[..., Train], format: str
) -> None:
    torch.manual_seed(0)
    table, weight = random_train(format, 24, 10, 1), random_train(format, 48, 10, 1)
    model = nn.Sequential(Embedding(table), Linear(weight)).eval()
    indices = torch.arange(24).reshape(12, 2)
    expected = table.to_dense()[indices] @ weight.to_dense().mT
    free = torch.export.Dim.DYNAMIC
    with torch.no_grad():
        program = torch.export.export(model, (indices[:3],), dynamic_shapes=({0: free},))
        torch.testing.assert_close(program.module()(indices), expected, **CLOSE)
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(indices), expected, **CLOSE)
