"""Recurrent layers: every configuration that torch.nn builds is recognised by keys and shapes."""

from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ttcompress.checkpoint.recurrent import RecurrentLayers, recognise
from ttcompress.errors import CheckpointError
from ttcompress.model.weights import GATES, RecurrentStack

LAYERS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
CELLS = {"lstm": nn.LSTMCell, "gru": nn.GRUCell, "rnn": nn.RNNCell}


def recognised(module: nn.Module, rename: dict[str, str] | None = None) -> RecurrentLayers:
    shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    for old, new in (rename or {}).items():
        shapes = {name.replace(old, new): shape for name, shape in shapes.items()}
    vectors = {name: shape[0] for name, shape in shapes.items() if len(shape) == 1}
    return recognise({n: s for n, s in shapes.items() if len(s) == 2}, vectors, shapes.keys())


@pytest.mark.parametrize(
    "kind, layers, bidirectional, bias, projection",
    [
        case
        for case in product(LAYERS, (1, 3), (False, True), (False, True), (0, 2))
        if case[0] == "lstm" or case[4] == 0
    ],
)
def test_every_configuration_of_torch_is_recognised(
    kind: str, layers: int, bidirectional: bool, bias: bool, projection: int
) -> None:
    options: dict[str, Any] = {"bias": bias, "bidirectional": bidirectional, "num_layers": layers}
    if projection:
        options["proj_size"] = projection
    found = recognised(nn.ModuleDict({"rnn": LAYERS[kind](7, 5, **options)}))
    assert found.stacks == (
        RecurrentStack("rnn.", kind, 7, 5, layers, bidirectional, projection, bias),
    )
    expected = {name: 1 if "hr" in name else GATES[kind] for name in found.gates}
    assert found.gates == expected and not found.notes


@pytest.mark.parametrize("kind, bias", list(product(CELLS, (False, True))))
def test_cells_are_recognised(kind: str, bias: bool) -> None:
    found = recognised(CELLS[kind](7, 5, bias=bias))
    assert found.stacks == (RecurrentStack("", kind, 7, 5, bias=bias, cell=True),)


def test_layers_under_different_prefixes_are_apart() -> None:
    model = nn.Sequential(nn.LSTM(2, 3), nn.GRU(3, 4), nn.LSTMCell(4, 4))
    stacks = recognised(model).stacks
    assert [(stack.prefix, stack.kind) for stack in stacks] == [
        ("0.", "lstm"), ("1.", "gru"), ("2.", "lstm"),
    ]  # fmt: skip


def test_weight_drop_is_recognised() -> None:
    found = recognised(nn.LSTM(3, 4, num_layers=2), {"weight_hh_l0": "weight_hh_l0_raw"})
    assert found.stacks[0].raw and found.stacks[0].num_layers == 2
    assert found.gates["weight_hh_l0_raw"] == 4


def test_the_dropped_copy_beside_the_raw_weight_is_recurrent_too() -> None:
    shapes = {"weight_ih_l0": (16, 3), "weight_hh_l0": (16, 4), "weight_hh_l0_raw": (16, 4)}
    found = recognise(shapes, {}, shapes)
    assert found.gates == dict.fromkeys(shapes, 4)
    assert found.stacks[0].raw


@pytest.mark.parametrize(
    "shapes, first, second",
    [
        ({"weight_ih_l0": (20, 3), "weight_hh_l0": (16, 4)}, "20 x 3", "16 x 4"),
        ({"weight_ih_l0": (8, 3), "weight_hh_l0": (8, 4)}, "8 x 3", "8 x 4"),
        (
            {
                "weight_ih_l0": (16, 3),
                "weight_hh_l0": (16, 4),
                "weight_ih_l1": (16, 5),
                "weight_hh_l1": (16, 4),
            },
            "16 x 5",
            "16 x 4",
        ),
        (
            {"weight_ih_l0": (16, 3), "weight_hh_l0": (16, 3), "weight_hr_l0": (2, 4)},
            "16 x 3",
            "16 x 3",
        ),
    ],
    ids=["rows differ", "no kind", "deeper layer", "projection"],
)
def test_shapes_that_do_not_fit_are_both_named(
    shapes: dict[str, tuple[int, int]], first: str, second: str
) -> None:
    with pytest.raises(CheckpointError) as caught:
        recognise(shapes, {}, shapes)
    assert first in str(caught.value) and second in str(caught.value)


@pytest.mark.parametrize(
    "shapes, keys, why",
    [
        ({"weight_ih_l0": (16, 3)}, (), "weight_hh_l0 is missing"),
        ({"weight_ih": (3, 16), "weight_hh": (4, 16)}, (), "not 4, 3 or 1 times"),
        (
            {"weight_ih_l0": (16, 3), "weight_hh_l0": (16, 4)},
            ("bias_ih_l0",),
            "biases are missing",
        ),
        ({"weight_ih_l1": (16, 3), "weight_hh_l1": (16, 4)}, (), "layer 0 is missing"),
        (
            {"weight_ih_l0": (16, 3), "weight_hh_l0": (16, 4)},
            ("bias_ih_l0", "bias_hh_l0"),
            "bias_ih_l0 is not a vector of 16 floats",
        ),
    ],
)
def test_what_only_has_the_names_is_noted(
    shapes: dict[str, tuple[int, int]], keys: tuple[str, ...], why: str
) -> None:
    found = recognise(shapes, dict.fromkeys(keys, 20), {*shapes, *keys})
    assert not found.stacks and set(found.gates) == set(shapes)
    assert why in found.notes[0]


def test_other_names_are_no_layers() -> None:
    shapes = {"weight": (4, 4), "my_weight_ih_l0": (4, 1), "weight_ih_l0_extra": (4, 4)}
    assert recognise(shapes, {}, shapes) == RecurrentLayers((), {}, ())


@given(st.sampled_from(sorted(LAYERS)), st.integers(1, 9), st.integers(1, 9), st.integers(1, 3))
def test_any_size_is_recognised(kind: str, inputs: int, hidden: int, layers: int) -> None:
    (stack,) = recognised(LAYERS[kind](inputs, hidden, num_layers=layers)).stacks
    assert (stack.kind, stack.input_size, stack.hidden_size) == (kind, inputs, hidden)
    assert stack.num_layers == layers
