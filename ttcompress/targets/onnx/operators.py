"""Runs one recurrent layer as ONNX's own operator LSTM, GRU or RNN in an exported graph.

A train is multiplied out there: the file holds its cores, and a runtime computes the matrix once,
when it loads the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.onnx.ops import symbolic_multi_out

from ttcompress.layers.products import DenseProduct, FactorProduct, Product
from ttcompress.layers.recurrence import Direction, Mode, State

GATE_ORDER = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}
"""Positions in torch's order of ONNX's gates: input, output, forget, cell; update, reset, new."""

_VERSION = 14
"""The operators' version: the one in the opsets 14 to 21; that of 22 only adds a number type."""


def kind_of(mode: str) -> str:
    """The operator of a layer with torch's equations: "LSTM", "GRU" or "RNN"."""
    return mode.partition("_")[0]


def operator_settings(mode: str, hidden: int, directions: int) -> dict[str, Any]:
    """The attributes of the operator."""
    settings: dict[str, Any] = {
        "hidden_size": hidden,
        "direction": "bidirectional" if directions == 2 else "forward",
    }
    if mode == "GRU":
        settings["linear_before_reset"] = 1  # as torch multiplies by the reset gate
    if kind_of(mode) == "RNN":
        settings["activations"] = [mode.partition("_")[2].capitalize()] * directions
    return settings


def run_operator(
    layer: Sequence[Direction], data: Tensor, states: Sequence[State], sizes: list[int] | None
) -> tuple[Tensor, list[State]]:
    """Like `run_scan`, as one operator for all directions of the layer; none is projected."""
    state = [torch.stack(members) for members in zip(*states, strict=True)]
    weights = [
        torch.stack([_reordered(_matrix(product), one.mode) for one, product in pairs])
        for pairs in ([(one, one.ih) for one in layer], [(one, one.hh) for one in layer])
    ]
    y, *lasts = _operator(layer[0].mode, data, *weights, _biases(layer), *state)
    output = y.squeeze(1) if len(layer) == 1 else y.transpose(1, 2).flatten(2)
    return output, [tuple(member[k] for member in lasts) for k in range(len(layer))]


@torch.compiler.allow_in_graph  # type: ignore[untyped-decorator]
def _operator(
    mode: Mode, data: Tensor, ih: Tensor, hh: Tensor, bias: Tensor | None, *state: Tensor
) -> tuple[Tensor, ...]:
    """The operator's outputs: (time, directions, batch, hidden), and the last of each state."""
    directions, batch, hidden = state[0].shape
    made = symbolic_multi_out(
        kind_of(mode),
        (data, ih, hh, bias, None, *state),  # None: the lengths of sequences
        operator_settings(mode, hidden, directions),
        dtypes=[torch.float32] * (1 + len(state)),
        shapes=[[data.shape[0], directions, batch, hidden], *(list(one.shape) for one in state)],
        version=_VERSION,
    )
    return tuple(made)


def _matrix(product: Product) -> Tensor:  # (rows, columns)
    if isinstance(product, FactorProduct):
        return (product.inner @ product.outer).mT
    assert isinstance(product, DenseProduct)  # never core by core in an exported graph
    return product.matrix


def _biases(layer: Sequence[Direction]) -> Tensor | None:  # (directions, 2 * rows)
    pairs = [[b for b in (one.bias_ih, one.bias_hh) if b is not None] for one in layer]
    if not any(pairs):
        return None
    mode = layer[0].mode
    return torch.stack([torch.cat([_reordered(bias, mode) for bias in pair]) for pair in pairs])


def _reordered(tensor: Tensor, mode: Mode) -> Tensor:
    """The rows of the gates in ONNX's order."""
    order = GATE_ORDER[kind_of(mode)]
    rows = len(tensor) // len(order)
    # Not by chunk: a Split has several outputs, which the exporter does not fold.
    return torch.cat([tensor[place * rows : (place + 1) * rows] for place in order])
