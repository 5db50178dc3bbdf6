from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ttcompress.errors import ArtifactError
from ttcompress.layers import LSTMCell, replace_layer
from ttcompress.trains.train import Train

FLOAT64 = torch.float64
KINDS: dict[str, tuple[type[nn.RNNCellBase], dict[str, Any]]] = {
    "LSTM": (nn.LSTMCell, {}),
    "GRU": (nn.GRUCell, {}),
    "RNN tanh": (nn.RNNCell, {}),
    "RNN relu": (nn.RNNCell, {"nonlinearity": "relu"}),
    "LSTM, no bias": (nn.LSTMCell, {"bias": False}),
    "GRU, no bias": (nn.GRUCell, {"bias": False}),
    "RNN, no bias": (nn.RNNCell, {"bias": False}),
}


@pytest.mark.parametrize("batch", [(), (1,), (3,)], ids=["unbatched", "one", "three"])
@pytest.mark.parametrize("given", [False, True], ids=["zero state", "given state"])
@pytest.mark.parametrize("run", ["auto", "factored", "rebuilt"])
@pytest.mark.parametrize(("format", "rank"), [("mps", 10_000), ("mpo", 1), ("mpo", 10_000)])
@pytest.mark.parametrize(("kind", "options"), KINDS.values(), ids=KINDS.keys())
def test_a_cell_of_trains_is_the_dense_cell(
    kind: type[nn.RNNCellBase],
    options: dict[str, Any],
    format: str,
    rank: int,
    run: str,
    given: bool,
    batch: tuple[int, ...],
    with_trains: Callable[..., dict[str, Train]],
    core_gradients: Callable[..., dict[str, Tensor]],
) -> None:
    torch.manual_seed(0)
    dense = kind(10, 12, dtype=FLOAT64, **options)
    trains = with_trains(dense, format, rank)
    cell = replace_layer(dense, trains)
    cell.run = run
    x = torch.randn(*batch, 10, dtype=FLOAT64, requires_grad=True)
    count = 2 if kind is nn.LSTMCell else 1
    members = [torch.randn(*batch, 12, dtype=FLOAT64, requires_grad=True) for _ in range(count)]
    state = None if not given else (tuple(members) if count == 2 else members[0])
    leaves = [x, *(members if given else [])]

    def outcome(module: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
        last = module(x, state)
        outputs = list(last) if isinstance(last, tuple) else [last]
        loss = sum((k + 1) * (output**2).sum() for k, output in enumerate(outputs))
        gradients = torch.autograd.grad(loss, leaves, retain_graph=True)
        loss.backward(inputs=list(module.parameters()))  # type: ignore[union-attr]
        return outputs, list(gradients)

    torch.testing.assert_close(outcome(cell), outcome(dense), rtol=1e-10, atol=1e-12)
    expected = core_gradients(trains, dense)
    expected |= {name: p.grad for name, p in dense.named_parameters() if name not in trains}
    found = {name: p.grad for name, p in cell.named_parameters()}
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    dense.eval(), cell.eval()
    with torch.no_grad():
        for _ in range(2):
            torch.testing.assert_close(cell(x, state), dense(x, state), rtol=1e-10, atol=1e-12)


def test_a_cell_refuses_what_torch_refuses(with_trains: Callable[..., dict[str, Train]]) -> None:
    dense = nn.LSTMCell(3, 4)
    cell = replace_layer(dense, with_trains(dense))
    zeros = torch.zeros
    for error, arguments in (
        (ValueError, (zeros(1, 2, 3),)),
        (RuntimeError, (zeros(2, 5),)),
        (RuntimeError, (zeros(2, 3), (zeros(2, 4), zeros(3, 4)))),
    ):
        for module in (dense, cell):
            with pytest.raises(error):
                module(*arguments)


def test_a_cell_keeps_the_attributes_and_the_mode(
    with_trains: Callable[..., dict[str, Train]],
) -> None:
    dense = nn.RNNCell(3, 4, nonlinearity="relu").eval()
    cell = replace_layer(dense, with_trains(dense))
    for name in ("input_size", "hidden_size", "bias", "nonlinearity", "training"):
        assert getattr(cell, name) == getattr(dense, name)
    with pytest.raises(ArtifactError, match="weight_hh is missing"):
        LSTMCell(cell.stack.__class__("", "lstm", 3, 4, cell=True, bias=False), {})


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell])
def test_a_cell_exports_with_a_free_batch(
    kind: type[nn.RNNCellBase], with_trains: Callable[..., dict[str, Train]]
) -> None:
    dense = kind(10, 12, dtype=FLOAT64)
    cell = replace_layer(dense, with_trains(dense)).eval()
    x = torch.randn(5, 10, dtype=FLOAT64)
    with torch.no_grad():
        program = torch.export.export(
            cell, (x[:3],), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
        )
        torch.testing.assert_close(program.module()(x), dense(x), rtol=1e-10, atol=1e-12)
