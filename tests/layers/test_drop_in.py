"""A compressed layer where code expects torch's: type checks, tracers, copies, inference mode."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import ttcompress
from ttcompress.layers import replace_layer
from ttcompress.trains.train import Train

FLOAT64 = torch.float64
CLOSE = {"rtol": 1e-10, "atol": 1e-12}
WithTrains = Callable[..., dict[str, Train]]

tracing = pytest.mark.filterwarnings(
    "ignore:.*torch.jit.* is deprecated", "ignore::torch.jit.TracerWarning"
)

RECURRENT = [nn.LSTM, nn.GRU, nn.RNN]
CELLS = [nn.LSTMCell, nn.GRUCell, nn.RNNCell]


class Tagger(nn.Module):
    """Every kind of layer; `forward` is one that `torch.fx` can trace."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(12, 6, dtype=FLOAT64)
        self.lstm = nn.LSTM(6, 8, 2, bidirectional=True, dtype=FLOAT64)
        self.gru = nn.GRU(16, 8, dtype=FLOAT64)
        self.cell = nn.LSTMCell(8, 6, dtype=FLOAT64)
        self.head = nn.Linear(6, 4, dtype=FLOAT64)

    def forward(self, symbols: Tensor, state: Any = None) -> Tensor:
        values, (_, _) = self.lstm(self.embedding(symbols), state)
        values, _ = self.gru(values)
        hidden, _ = self.cell(values[-1])
        logits: Tensor = self.head(hidden)
        return logits


@pytest.fixture
def pair(with_trains: WithTrains) -> tuple[Tagger, Tagger]:
    """Dense and compressed, which compute the same."""
    torch.manual_seed(0)
    dense = Tagger().eval()
    compressed = copy.deepcopy(dense)
    for name, layer in dense.named_children():
        setattr(compressed, name, replace_layer(layer, with_trains(layer, "mps", 3)))
    return dense, compressed


@pytest.mark.parametrize("kind", [*RECURRENT, *CELLS])
def test_type_checks_see_torchs_class(kind: type[nn.Module], with_trains: WithTrains) -> None:
    dense = kind(4, 6)
    layer = replace_layer(dense, with_trains(dense))
    assert isinstance(layer, kind)
    assert [isinstance(layer, other) for other in [*RECURRENT, *CELLS]].count(True) == 1
    assert isinstance(layer, nn.RNNBase) == (kind in RECURRENT)
    assert replace_layer(layer, {}) is layer


@pytest.mark.filterwarnings("ignore")  # torch has announced the end of its quantisation
def test_dynamic_quantisation_leaves_it_alone(pair: tuple[Tagger, Tagger]) -> None:
    _, model = pair
    model.float()
    model.extra = nn.LSTM(6, 8)
    quantised = torch.ao.quantization.quantize_dynamic(model, {nn.LSTM, nn.GRU, nn.LSTMCell})
    assert type(quantised.extra) is torch.ao.nn.quantized.dynamic.LSTM
    assert type(quantised.lstm) is type(model.lstm)
    symbols = torch.randint(12, (5, 3))
    torch.testing.assert_close(quantised(symbols), model(symbols))


@pytest.mark.parametrize("kind", CELLS)
def test_a_cell_without_hidden_units_gives_an_empty_state(kind: type[nn.RNNCellBase]) -> None:
    dense = kind(4, 0)
    cell, x = replace_layer(dense, {}), torch.randn(3, 4)
    torch.testing.assert_close(cell(x), dense(x))


@tracing
@pytest.mark.parametrize("run", ["auto", "factored"])
def test_a_jit_trace_serves_any_length_and_batch(pair: tuple[Tagger, Tagger], run: Any) -> None:
    dense, model = pair
    for layer in model.children():
        layer.run = run
    with torch.no_grad():
        model(torch.randint(12, (5, 3)))  # what this keeps must not become a constant
        traced = torch.jit.trace(model, (torch.randint(12, (5, 3)),))
        for sizes in ((5, 3), (9, 2), (1, 7)):
            symbols = torch.randint(12, sizes)
            torch.testing.assert_close(traced(symbols), dense(symbols), **CLOSE)
        for parameter in traced.parameters():  # shared with the model
            parameter.mul_(1.5)
        torch.testing.assert_close(traced(symbols), model(symbols), **CLOSE)


class Packing(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
        values: Tensor = pad_packed_sequence(self.layer(packed)[0])[0]
        return values


@tracing
def test_a_jit_trace_packs_any_number_of_sequences(pair: tuple[Tagger, Tagger]) -> None:
    dense, model = (Packing(module.lstm) for module in pair)
    example = torch.randn(5, 3, 6, dtype=FLOAT64), torch.tensor([5, 2, 3])
    with torch.no_grad():
        traced = torch.jit.trace(model, example)
        x, lengths = torch.randn(8, 4, 6, dtype=FLOAT64), torch.tensor([2, 8, 1, 4])
        torch.testing.assert_close(traced(x, lengths), dense(x, lengths), **CLOSE)


def test_fx_sees_leaves(pair: tuple[Tagger, Tagger]) -> None:
    dense, model = pair
    graph = torch.fx.symbolic_trace(model)
    called = [node.target for node in graph.graph.nodes if node.op == "call_module"]
    assert called == ["embedding", "lstm", "gru", "cell", "head"]
    for sizes in ((5, 3), (9, 2)):
        symbols = torch.randint(12, sizes)
        torch.testing.assert_close(graph(symbols), dense(symbols), **CLOSE)


def _saved(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    copied: nn.Module = torch.load(io.BytesIO(file.getvalue()), weights_only=False)
    return copied


def _assigned(model: nn.Module) -> nn.Module:
    """A copy that holds the tensors of a file: weights only, and in place of its own."""
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    other = copy.deepcopy(model)
    other(torch.zeros(1, 1, dtype=torch.int64))
    state = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    other.load_state_dict({name: 1.5 * tensor for name, tensor in state.items()}, assign=True)
    other(torch.zeros(1, 1, dtype=torch.int64))
    other.load_state_dict(state, assign=True)
    return other


def _pickled(model: nn.Module) -> nn.Module:
    copied: nn.Module = pickle.loads(pickle.dumps(model))
    return copied


@pytest.mark.parametrize("copier", [copy.deepcopy, _pickled, _saved, _assigned])
@pytest.mark.parametrize("frozen", [False, True])
def test_copies_made_in_inference_mode_compute_the_same(
    pair: tuple[Tagger, Tagger], copier: Callable[[nn.Module], nn.Module], frozen: bool
) -> None:
    dense, model = pair
    symbols = torch.randint(12, (5, 3))
    if frozen:
        ttcompress.freeze(model)
    with torch.inference_mode():
        expected = model(symbols)
        copied = copier(model)
        torch.testing.assert_close(copied(symbols), expected)
        for parameter in copied.parameters():
            parameter.mul_(1.5)
        written = copied(symbols)
    with torch.no_grad():
        torch.testing.assert_close(copied(symbols), written)
        torch.testing.assert_close(model(symbols), dense(symbols), **CLOSE)
    assert not torch.allclose(written, expected)


def test_an_average_in_place_is_seen_by_every_layer(pair: tuple[Tagger, Tagger]) -> None:
    _, model = pair
    averaged = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.5)
    ).eval()
    symbols = torch.randint(12, (5, 3))
    with torch.no_grad():
        averaged.update_parameters(model)
        before = averaged(symbols)
        for parameter in model.parameters():
            parameter.data.mul_(2)
        averaged.update_parameters(model)
        after = averaged(symbols)
        fresh = copy.deepcopy(averaged)(symbols)
    torch.testing.assert_close(after, fresh)
    assert not torch.allclose(after, before)


def test_a_frozen_model_computes_the_same_and_trains_around_it(
    pair: tuple[Tagger, Tagger],
) -> None:
    dense, model = pair
    assert ttcompress.freeze(model) is model
    model.embedding = dense.embedding  # dense, and trained further
    symbols = torch.randint(12, (5, 3))
    for module in pair:
        module(symbols).square().sum().backward()
    expected = copy.deepcopy(dense.embedding.weight.grad)
    dense.embedding.weight.grad = None
    model(symbols).square().sum().backward()
    torch.testing.assert_close(dense.embedding.weight.grad, expected / 2, **CLOSE)
    assert {name for name, p in model.named_parameters() if p.grad is None} == {
        name for name, _ in model.named_parameters() if ".cores." in name
    }


def test_inside_a_compiled_model_writes_are_seen(pair: tuple[Tagger, Tagger]) -> None:
    _, model = pair
    compiled = torch.compile(model, backend="eager")
    symbols = torch.randint(12, (5, 3))
    with torch.no_grad():
        before = compiled(symbols)
        for parameter in model.parameters():
            parameter.data.mul_(1.5)
        after = compiled(symbols)
        torch.testing.assert_close(after, copy.deepcopy(model)(symbols))
    assert not torch.allclose(after, before)


@pytest.mark.parametrize("frozen", [False, True])
def test_on_a_meta_device_it_has_shapes(pair: tuple[Tagger, Tagger], frozen: bool) -> None:
    model = pair[1].to("meta")
    if frozen:
        ttcompress.freeze(model)
    with torch.no_grad():
        assert model(torch.zeros(5, 3, dtype=torch.int64, device="meta")).shape == (3, 4)


def test_another_models_tensors_may_be_called_with(pair: tuple[Tagger, Tagger]) -> None:
    _, model = pair
    symbols = torch.randint(12, (5, 3))
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.5)
        before = model(symbols)
        called = torch.func.functional_call(model, dict(other.named_parameters()), (symbols,))
        torch.testing.assert_close(called, other(symbols))
        torch.testing.assert_close(model(symbols), before)
