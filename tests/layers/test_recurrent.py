from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

from ttcompress.errors import ArtifactError
from ttcompress.layers import GRU, LSTM, RNN, TrainWeight, recurrent, replace_layer
from ttcompress.model.weights import RecurrentStack
from ttcompress.planning.formats import MpsLayout
from ttcompress.trains.mps import MpsTrain
from ttcompress.trains.train import Train

FLOAT64 = torch.float64
CLOSE = {"rtol": 1e-10, "atol": 1e-12}
WithTrains = Callable[..., dict[str, Train]]


@pytest.fixture
def pair(with_trains: WithTrains) -> tuple[nn.LSTM, LSTM]:
    torch.manual_seed(0)
    dense = nn.LSTM(6, 8, 2, batch_first=True, bidirectional=True, dtype=FLOAT64).eval()
    layer = replace_layer(dense, with_trains(dense, "mps", 3))
    assert isinstance(layer, LSTM)
    return dense, layer


@pytest.mark.parametrize(
    "dense",
    [
        nn.LSTM(6, 8, 2, batch_first=True, dropout=0.25, proj_size=3),
        nn.GRU(6, 8, bidirectional=True, bias=False),
        nn.RNN(6, 8, nonlinearity="relu"),
    ],
)
def test_attributes_that_code_reads_are_torchs(dense: nn.RNNBase, with_trains: WithTrains) -> None:
    layer = replace_layer(dense, with_trains(dense))
    names = ["mode", "input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout"]
    names += ["bidirectional", "proj_size", "training"]
    names += ["nonlinearity"] if isinstance(dense, nn.RNN) else []
    assert [getattr(layer, name) for name in names] == [getattr(dense, name) for name in names]
    layer.flatten_parameters()
    shapes = [[tuple(weight.shape) for weight in weights] for weights in dense.all_weights]
    assert [[tuple(weight.shape) for weight in weights] for weights in layer.all_weights] == shapes
    assert layer.weight_hh_l0.new_zeros(1, 2).dtype == next(layer.parameters()).dtype


def test_state_dict_keys_follow_the_dense_names(with_trains: WithTrains) -> None:
    dense = nn.LSTM(6, 8)
    layer = replace_layer(dense, with_trains(dense, keep=("weight_hh",)))
    cores = {f"weight_ih_l0.cores.{k}" for k in range(4)}
    assert layer.state_dict().keys() == cores | {"weight_hh_l0", "bias_ih_l0", "bias_hh_l0"}


def _pickled(layer: nn.Module) -> nn.Module:
    copied: nn.Module = pickle.loads(pickle.dumps(layer))
    return copied


def _saved(layer: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(layer, file)
    copied: nn.Module = torch.load(io.BytesIO(file.getvalue()), weights_only=False)
    return copied


def _loaded(layer: nn.Module) -> nn.Module:
    other = copy.deepcopy(layer)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    other.load_state_dict(layer.state_dict())
    return other


@pytest.mark.parametrize("copier", [copy.deepcopy, _pickled, _saved, _loaded])
@pytest.mark.parametrize("run", ["factored", "rebuilt"])
def test_copies_compute_the_same_and_are_apart(
    pair: tuple[nn.LSTM, LSTM], copier: Callable[[nn.Module], nn.Module], run: Any
) -> None:
    _, layer = pair
    layer.run = run
    x = torch.randn(2, 5, 6, dtype=FLOAT64)
    with torch.no_grad():
        before = layer(x)
        copied = copier(layer)
        torch.testing.assert_close(copied(x), before)
        for parameter in copied.parameters():
            parameter.zero_()
        torch.testing.assert_close(layer(x), before)
        assert not copied(x)[0].any()


@pytest.mark.parametrize("run", ["factored", "rebuilt"])
def test_to_changes_the_type_it_computes_in(pair: tuple[nn.LSTM, LSTM], run: Any) -> None:
    dense, layer = pair
    layer.run = run
    x = torch.randn(2, 5, 6, dtype=FLOAT64)
    with torch.no_grad():
        layer(x)
        found, _ = layer.to(torch.float32)(x.float())
        expected, _ = dense(x)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


def test_state_carried_from_chunk_to_chunk_is_one_long_call(pair: tuple[nn.LSTM, LSTM]) -> None:
    _, layer = pair
    forwards = LSTM(
        RecurrentStack("", "lstm", 6, 8),
        {name[: -len("_l0")] + "_l0": t for name, t in _first_layer(layer).items()},
    ).eval()
    x = torch.randn(9, 2, 6, dtype=FLOAT64)
    with torch.no_grad():
        whole, last = forwards(x)
        first, state = forwards(x[:4])
        second, state = forwards(x[4:], state)
    torch.testing.assert_close(torch.cat([first, second]), whole)
    torch.testing.assert_close(state, last)


def _first_layer(layer: LSTM) -> dict[str, Train | Tensor]:
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    held = {name: getattr(layer, name) for name in names}
    return {n: h.as_train() if isinstance(h, TrainWeight) else h for n, h in held.items()}


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("run", ["factored", "rebuilt"])
def test_the_callers_tensors_are_left_alone(
    kind: type[nn.RNNBase], run: Any, with_trains: WithTrains
) -> None:
    dense = kind(4, 6)
    layer = replace_layer(dense, with_trains(dense)).eval()
    layer.run = run
    x, state = torch.randn(3, 2, 4), tuple(torch.randn(1, 2, 6) for _ in range(2))
    before = x.clone(), tuple(member.clone() for member in state)
    with torch.no_grad():
        layer(x, state if kind is nn.LSTM else state[0])
    assert torch.equal(x, before[0])
    assert all(torch.equal(a, b) for a, b in zip(state, before[1], strict=True))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("run", ["factored", "rebuilt"])
def test_an_empty_batch_gives_an_empty_output(
    kind: type[nn.RNNBase], run: Any, with_trains: WithTrains
) -> None:
    dense = kind(4, 6, bidirectional=True).eval()
    layer = replace_layer(dense, with_trains(dense))
    layer.run = run
    with torch.no_grad():
        torch.testing.assert_close(layer(torch.zeros(3, 0, 4)), dense(torch.zeros(3, 0, 4)))


REFUSED: list[tuple[type[Exception], tuple[Any, ...]]] = [
    (ValueError, (torch.zeros(2, 2, 5, 6, dtype=FLOAT64),)),
    (ValueError, (torch.zeros(2, 5, 6),)),
    (RuntimeError, (torch.zeros(2, 5, 7, dtype=FLOAT64),)),
    (RuntimeError, (torch.zeros(2, 0, 6, dtype=FLOAT64),)),
    (
        RuntimeError,
        (torch.zeros(2, 5, 6, dtype=FLOAT64), (torch.zeros(4, 3, 8, dtype=FLOAT64),) * 2),
    ),
    (
        RuntimeError,
        (torch.zeros(5, 6, dtype=FLOAT64), (torch.zeros(4, 1, 8, dtype=FLOAT64),) * 2),
    ),
]


@pytest.mark.parametrize(("error", "arguments"), REFUSED)
def test_what_torch_refuses_is_refused_with_its_exception(
    pair: tuple[nn.LSTM, LSTM], error: type[Exception], arguments: tuple[Any, ...]
) -> None:
    for module in pair:
        with pytest.raises(error):
            module(*arguments)


def test_tensors_that_do_not_fit_are_all_named(with_trains: WithTrains) -> None:
    trains = with_trains(nn.LSTM(6, 8))
    with pytest.raises(ArtifactError) as caught:
        LSTM(RecurrentStack("", "lstm", 6, 10, bias=False), trains | {"weight_hr_l0": trains})
    for part in ("weight_hr_l0 is not a tensor of", "(32, 6), but the layer needs (40, 6)"):
        assert part in str(caught.value)
    with pytest.raises(ArtifactError, match="bias_ih_l0 is missing"):
        GRU(RecurrentStack("", "gru", 2, 4), {})
    with pytest.raises(ValueError, match="kind lstm, but this is a gru"):
        GRU(RecurrentStack("", "lstm", 2, 4), {})
    with pytest.raises(ValueError, match="must be 'tanh' or 'relu'"):
        RNN(RecurrentStack("", "rnn", 2, 4), {}, nonlinearity="sigmoid")
    with pytest.raises(ValueError, match="must be one of auto, factored, rebuilt"):
        RNN(RecurrentStack("", "rnn", 2, 4), {}, run="fast")  # type: ignore[arg-type]


@pytest.mark.parametrize(("run", "gradients"), [("factored", False), ("auto", True)])
def test_inside_a_compiled_model(pair: tuple[nn.LSTM, LSTM], run: Any, gradients: bool) -> None:
    dense, layer = pair
    layer.run = run
    compiled = torch.compile(nn.Sequential(nn.Identity(), layer), backend="eager")
    with torch.set_grad_enabled(gradients):
        for batch, steps in ((2, 5), (3, 4)):
            x = torch.randn(batch, steps, 6, dtype=FLOAT64)
            torch.testing.assert_close(compiled(x), dense(x), **CLOSE)


@pytest.mark.parametrize(
    ("dense", "format", "rank"),
    [
        (nn.LSTM(4, 6, 2, bidirectional=True, batch_first=True, dtype=FLOAT64), "mps", 3),
        (nn.LSTM(4, 6, proj_size=3, dtype=FLOAT64), "mps", 3),
        (nn.GRU(4, 6, dtype=FLOAT64), "mps", 3),
        (nn.RNN(4, 6, dtype=FLOAT64), "mpo", 1),
    ],
)
def test_export_is_a_scan_with_free_batch_and_time(
    dense: nn.RNNBase, format: str, rank: int, with_trains: WithTrains
) -> None:
    layer = replace_layer(dense, with_trains(dense, format, rank)).eval()
    free = torch.export.Dim.DYNAMIC
    example = torch.randn(3, 5, 4, dtype=FLOAT64)
    with torch.no_grad():
        program = torch.export.export(layer, (example,), dynamic_shapes=({0: free, 1: free},))
    directions = len(dense.all_weights)
    scans = [node for node in program.graph.nodes if str(node.target) == "scan"]
    assert len(scans) == directions
    x = torch.randn(2, 11, 4, dtype=FLOAT64)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), dense.eval()(x), **CLOSE)


def test_a_packed_sequence_cannot_be_scanned(pair: tuple[nn.LSTM, LSTM]) -> None:
    packed = pack_sequence([torch.zeros(3, 6, dtype=FLOAT64), torch.zeros(2, 6, dtype=FLOAT64)])

    class Packing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = pair[1]

        def forward(self, x: Tensor) -> Tensor:
            output: Tensor = self.layer(packed._replace(data=x))[0].data
            return output

    with pytest.raises(ValueError, match="a packed sequence cannot be exported"):
        torch.export.export(Packing(), (packed.data,))


@pytest.mark.parametrize("run", ["auto", "factored", "rebuilt"])
def test_autocast_computes_in_half_precision(pair: tuple[nn.LSTM, LSTM], run: Any) -> None:
    dense, layer = (module.float() for module in pair)
    layer.run = run
    x = torch.randn(2, 5, 6)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found, expected = layer(x)[0], dense(x)[0]
    torch.testing.assert_close(found.float(), expected.float(), rtol=0.05, atol=0.05)


def test_under_autocast_its_weights_reach_the_kernel_in_one_type(
    pair: tuple[nn.LSTM, LSTM], monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, seen = pair[1].float().train(), []  # cuDNN refuses two

    def kernel(data: Tensor, state: Any, weights: list[Tensor], *options: Any) -> Any:
        seen.extend(weight.dtype for weight in weights)
        return torch.lstm(data, state, weights, *options)

    monkeypatch.setitem(recurrent._FUSED, "LSTM", (kernel, torch.lstm_cell))
    with torch.autocast("cpu", torch.bfloat16):
        layer(torch.randn(2, 5, 6))
    assert set(seen) == {torch.float32}


def test_factored_it_makes_nothing_as_large_as_a_dense_matrix(
    largest_result: Callable[[Callable[[], object]], int],
) -> None:
    hidden, rank = 64, 4
    train = MpsTrain(
        MpsLayout((4 * hidden,), (hidden,)),
        (torch.randn(1, 4 * hidden, rank), torch.randn(rank, hidden, 1)),
    )
    layer = LSTM(
        RecurrentStack("", "lstm", hidden, hidden, bias=False),
        {"weight_ih_l0": train, "weight_hh_l0": train},
        run="factored",
    ).eval()
    with torch.no_grad():
        x = torch.randn(5, 1, hidden)
        assert largest_result(lambda: layer(x)) == 5 * 4 * hidden  # the projected inputs
        layer.run = "rebuilt"
        assert largest_result(lambda: layer(x)) >= 4 * hidden * hidden
