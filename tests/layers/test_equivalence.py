"""One table: every configuration of torch's recurrent layers, run through trains, is torch's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from ttcompress.layers import replace_layer
from ttcompress.trains.train import Train

FLOAT64 = torch.float64
FULL = 10_000
CLOSE = {"rtol": 1e-10, "atol": 1e-12}


@dataclass(frozen=True)
class Case:
    """A layer and a call: `lengths` are those of the sequences; packed where they are given so."""

    kind: type[nn.RNNBase] = nn.LSTM
    options: dict[str, Any] = field(default_factory=dict)
    lengths: tuple[int, ...] = (5, 5, 5)
    packed: bool = False
    batched: bool = True
    state: bool = False
    sizes: tuple[int, int] = (10, 12)

    def layer(self) -> nn.RNNBase:
        return self.kind(*self.sizes, dtype=FLOAT64, **self.options)

    def arguments(self) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        """Leaves: the padded input (or unbatched), and the states in torch's order."""
        shape = [max(self.lengths), self.sizes[0]]
        if self.batched:
            shape.insert(0 if self.options.get("batch_first") else 1, len(self.lengths))
        x = torch.randn(shape, dtype=FLOAT64, requires_grad=True)
        return x, self._state() if self.state else None

    def _state(self) -> tuple[Tensor, ...]:
        rows = self.options.get("num_layers", 1) * (1 + self.options.get("bidirectional", False))
        hidden = self.options.get("proj_size") or self.sizes[1]
        widths = (hidden, self.sizes[1]) if self.kind is nn.LSTM else (hidden,)
        batch = (len(self.lengths),) if self.batched else ()
        return tuple(
            torch.randn(rows, *batch, w, dtype=FLOAT64, requires_grad=True) for w in widths
        )

    def call(
        self, layer: nn.Module, x: Tensor, state: tuple[Tensor, ...] | None
    ) -> tuple[Tensor, ...]:
        """Output values, then states; a packed output with its sizes and orders is checked too."""
        given: Tensor | PackedSequence = x
        if self.packed:
            first = bool(self.options.get("batch_first"))
            given = pack_padded_sequence(x, torch.tensor(self.lengths), first, enforce_sorted=False)
        hx = state if state is None or self.kind is nn.LSTM else state[0]
        output, last = layer(given, hx)
        if self.packed:
            assert all(a is b for a, b in zip(output[1:], given[1:], strict=True))
            output = output.data
        return (output, *last) if isinstance(last, tuple) else (output, last)


CASES = {
    "plain": Case(),
    "batch first": Case(options={"batch_first": True}),
    "no bias": Case(options={"bias": False}),
    "given state": Case(state=True),
    "layers": Case(options={"num_layers": 3}, state=True),
    "bidirectional": Case(options={"bidirectional": True}, state=True),
    "both": Case(options={"bidirectional": True, "num_layers": 2, "bias": False}, state=True),
    "dropout": Case(options={"num_layers": 2, "dropout": 0.5, "bidirectional": True}),
    "unbatched": Case(lengths=(5,), batched=False),
    "unbatched, state": Case(
        lengths=(5,), batched=False, state=True, options={"batch_first": True, "num_layers": 2}
    ),
    "batch of one": Case(lengths=(7,), state=True),
    "one step": Case(lengths=(1, 1), state=True),
    "packed": Case(lengths=(5, 3, 3, 1), packed=True),
    "packed, unsorted": Case(lengths=(2, 5, 1, 4), packed=True, state=True),
    "packed, all": Case(
        lengths=(2, 5, 5, 4),
        packed=True,
        state=True,
        options={"batch_first": True, "bidirectional": True, "num_layers": 2, "dropout": 0.3},
    ),
    "prime sizes": Case(sizes=(7, 11), state=True),
}
PROJECTED = {
    "proj": Case(options={"proj_size": 6}, state=True),
    "proj, no bias": Case(options={"proj_size": 6, "bias": False}),
    "proj, all": Case(
        lengths=(2, 5, 4),
        packed=True,
        state=True,
        options={"proj_size": 6, "bidirectional": True, "num_layers": 2},
    ),
}
KINDS: dict[str, tuple[type[nn.RNNBase], dict[str, Any]]] = {
    "LSTM": (nn.LSTM, {}),
    "GRU": (nn.GRU, {}),
    "RNN tanh": (nn.RNN, {}),
    "RNN relu": (nn.RNN, {"nonlinearity": "relu"}),
}
TABLE = {
    f"{kind}: {name}": replace(case, kind=layer, options={**case.options, **extra})
    for kind, (layer, extra) in KINDS.items()
    for name, case in CASES.items()
} | {f"LSTM: {name}": case for name, case in PROJECTED.items()}


# An MPO of rank 1 runs core by core, one of full rank is cheaper rebuilt.
@pytest.mark.parametrize("run", ["factored", "rebuilt"])
@pytest.mark.parametrize(("format", "rank"), [("mps", FULL), ("mpo", 1), ("mpo", FULL)])
@pytest.mark.parametrize("case", TABLE.values(), ids=TABLE.keys())
def test_a_layer_of_trains_is_the_dense_layer(
    case: Case,
    format: str,
    rank: int,
    run: str,
    with_trains: Callable[..., dict[str, Train]],
    core_gradients: Callable[..., dict[str, Tensor]],
) -> None:
    torch.manual_seed(0)
    dense = case.layer()
    trains = with_trains(dense, format, rank)
    layer = replace_layer(dense, trains)
    layer.run = run
    check_inference(case, dense, layer)
    check_gradients(case, dense, layer, trains, core_gradients)


def check_inference(case: Case, dense: nn.Module, layer: nn.Module) -> None:
    """In evaluation, without gradients, twice: what the first call keeps, the second uses."""
    dense.eval(), layer.eval()
    with torch.no_grad():
        for _ in range(2):
            x, state = case.arguments()
            torch.testing.assert_close(
                case.call(layer, x, state), case.call(dense, x, state), **CLOSE
            )


def check_gradients(
    case: Case,
    dense: nn.Module,
    layer: nn.Module,
    trains: dict[str, Train],
    core_gradients: Callable[..., dict[str, Tensor]],
) -> None:
    """In training, with torch's own random dropout: outputs, and gradients of every leaf."""
    dense.train(), layer.train()
    x, state = case.arguments()
    leaves = (x, *(state or ()))
    seen = []
    for module in (dense, layer):
        torch.manual_seed(1)
        outputs = case.call(module, x, state)
        weights = [torch.randn_like(output) for output in outputs]
        loss = sum((out * w).sum() for out, w in zip(outputs, weights, strict=True))
        loss.backward()  # type: ignore[union-attr]
        seen.append((outputs, [leaf.grad for leaf in leaves]))
        for leaf in leaves:
            leaf.grad = None
    torch.testing.assert_close(seen[1], seen[0], **CLOSE)
    expected = core_gradients(trains, dense)
    expected |= {name: p.grad for name, p in dense.named_parameters() if name not in trains}
    found = {name: p.grad for name, p in layer.named_parameters()}
    torch.testing.assert_close(found, expected, **CLOSE)


@settings(max_examples=30, deadline=None)
@given(
    kind=st.sampled_from(list(KINDS.values())),
    trains=st.tuples(st.sampled_from(["mps", "mpo"]), st.sampled_from([1, 2, 3, FULL])),
    run=st.sampled_from(["auto", "factored", "rebuilt"]),
    sizes=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    flags=st.fixed_dictionaries(
        {
            "bias": st.booleans(),
            "batch_first": st.booleans(),
            "bidirectional": st.booleans(),
            "num_layers": st.integers(1, 3),
        }
    ),
    state=st.booleans(),
    dense_names=st.sampled_from([(), ("weight_ih",), ("weight_hh",)]),
)
def test_any_layer_of_trains_and_dense_weights_is_the_dense_layer(
    with_trains: Callable[..., dict[str, Train]],
    core_gradients: Callable[..., dict[str, Tensor]],
    kind: tuple[type[nn.RNNBase], dict[str, Any]],
    trains: tuple[str, int],
    run: str,
    sizes: tuple[int, int],
    lengths: list[int],
    flags: dict[str, Any],
    state: bool,
    dense_names: tuple[str, ...],
) -> None:
    packed = len(set(lengths)) > 1
    case = Case(kind[0], kind[1] | flags, tuple(lengths), packed, state=state, sizes=sizes)
    dense = case.layer()
    chosen = with_trains(dense, *trains, keep=dense_names)
    layer = replace_layer(dense, chosen)
    layer.run = run
    check_inference(case, dense, layer)
    check_gradients(case, dense, layer, chosen, core_gradients)
