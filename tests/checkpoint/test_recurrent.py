"""Recurrent layers: every configuration that torch.nn builds is recognised by keys and shapes."""

from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ttcompress.checkpoint import open_checkpoint
from ttcompress.checkpoint.recurrent import RecurrentLayers, foreign_layers, recognise
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
    found = recognised(
        nn.LSTM(3, 4, num_layers=2),
        {"weight_hh_l0": "weight_hh_l0_raw", "weight_hh_l1": "weight_hh_l1_raw"},
    )
    assert found.stacks[0].raw and found.stacks[0].num_layers == 2
    assert found.gates["weight_hh_l1_raw"] == 4


def test_the_dropped_copy_beside_the_raw_weight_is_recurrent_too() -> None:
    shapes = {"weight_ih_l0": (16, 3), "weight_hh_l0": (16, 4), "weight_hh_l0_raw": (16, 4)}
    found = recognise(shapes, {}, shapes)
    assert found.gates == dict.fromkeys(shapes, 4)
    assert found.stacks[0].raw


@pytest.mark.parametrize(
    "shapes, found, wanted",
    [
        ({"weight_ih_l0": (20, 3), "weight_hh_l0": (16, 4)}, "20 x 3", "16 x 3"),
        ({"weight_ih_l0": (8, 3), "weight_hh_l0": (8, 4)}, "8 x 4", "4 hidden units"),
        (
            {
                "weight_ih_l0": (16, 3),
                "weight_hh_l0": (16, 4),
                "weight_ih_l1": (16, 5),
                "weight_hh_l1": (16, 4),
            },
            "weight_ih_l1 is 16 x 5",
            "16 x 4",
        ),
        (
            {"weight_ih_l0": (16, 3), "weight_hh_l0": (16, 3), "weight_hr_l0": (2, 4)},
            "weight_hh_l0 is 16 x 3",
            "16 x 2",
        ),
        (
            {"weight_ih_l0": (12, 3), "weight_hh_l0": (12, 2), "weight_hr_l0": (2, 4)},
            "12 x 2",
            "4 hidden units",
        ),
    ],
    ids=["rows differ", "no kind", "deeper layer", "projection", "a GRU's projection"],
)
def test_shapes_that_do_not_fit_are_noted_with_those_that_would(
    shapes: dict[str, tuple[int, int]], found: str, wanted: str
) -> None:
    result = recognise(shapes, {}, shapes)
    assert not result.stacks and result.gates.keys() == shapes.keys()
    assert found in result.foreign[""] and wanted in result.foreign[""]
    assert all(shapes[name][0] % gates == 0 for name, gates in result.gates.items())


TWO_AND_A_HALF = ("0", "0_reverse", "1")
"""Ends of the names of a layer with two directions below one that has one."""


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
            {f"weight_{part}_l{end}": (16, 4) for part in ("ih", "hh") for end in TWO_AND_A_HALF},
            (),
            "some layers have a reverse direction but others do not",
        ),
        (
            {f"weight_{part}_l{k}": (16, 4) for part in ("ih", "hh") for k in (0, 1)}
            | {"weight_hr_l1": (4, 4)},
            (),
            "some layers have a projection but others do not",
        ),
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
    assert recognise(shapes, {}, shapes) == RecurrentLayers((), {}, {}, ())


STRANGERS: dict[str, dict[str, tuple[int, ...]]] = {
    "one bias of a layer": {"bias_l0": (32,)},
    "one bias of a cell": {"bias": (32,)},
    "peepholes": {"weight_ci": (8,), "weight_cf": (8,), "weight_co": (8,)},
    "layer norms inside": {"ln_ih.weight": (32,), "ln_ih.bias": (32,)},
    "batch norm inside": {"bn.running_mean": (32,), "bn.num_batches_tracked": ()},
    "another recurrent matrix": {"weight_skip_l0": (32, 8)},
    "attention inside": {"attention.query.weight": (8, 8)},
    "a first state": {"h0": (1, 8)},
    "a dropped input matrix": {"weight_ih_l0_raw": (32, 3)},
    "some of the raw weights": {"weight_hh_l1_raw": (32, 8)},
}


@pytest.mark.parametrize("stranger", STRANGERS)
@pytest.mark.parametrize("layer", [nn.LSTM(3, 8, num_layers=2), nn.LSTMCell(3, 8)])
def test_tensors_that_torchs_layer_does_not_have_rule_it_out(layer, stranger) -> None:
    tensors = {f"a.rnn.{name}": tuple(t.shape) for name, t in layer.state_dict().items()}
    tensors |= {f"b.rnn.{name}": tuple(t.shape) for name, t in layer.state_dict().items()}
    shapes = tensors | {f"a.rnn.{name}": shape for name, shape in STRANGERS[stranger].items()}
    matrices = {n: (s[0], s[1]) for n, s in shapes.items() if len(s) == 2}
    found = recognise(matrices, {n: s[0] for n, s in shapes.items() if len(s) == 1}, shapes)
    assert [stack.prefix for stack in found.stacks] == ["b.rnn."]
    (why,) = found.foreign.values()
    assert all(name in why or "raw" in name for name in STRANGERS[stranger])
    assert {found.gates[name] for name in matrices if "weight_hh" in name} == {4}


def test_many_strange_tensors_are_named_in_part() -> None:
    shapes = {"weight_ih": (16, 3), "weight_hh": (16, 4)}
    names = [f"norm{k}.weight" for k in range(9)]
    found = recognise(shapes, {}, {*shapes, *names})
    assert found.foreign == {
        "": "it also has norm0.weight, norm1.weight, norm2.weight and more"
    }  # fmt: skip


@pytest.mark.parametrize("beside", ["norm.weight", "ln.weight", "cells.weight", "cel", "cell_norm"])
def test_what_stands_beside_a_layer_does_not_rule_it_out(beside: str) -> None:
    shapes = {"rnn.cell.weight_ih": (16, 3), "rnn.cell.weight_hh": (16, 4)}
    found = recognise(shapes, {f"rnn.{beside}": 16}, {*shapes, f"rnn.{beside}"})
    assert [stack.prefix for stack in found.stacks] == ["rnn.cell."]


@pytest.mark.parametrize(
    ("prefix", "blocks", "fits"),
    [
        ("lstm.", 3, False),
        ("encoder.BiLSTM.0.", 3, False),
        ("lstm.", 1, False),
        ("gru.", 4, False),
        ("gru_cell.", 1, False),
        ("lstm.", 4, True),
        ("lstm_model.gru.", 3, True),
        ("gru_or_lstm.", 3, True),
        ("lstm.rnn.", 4, True),
        ("rnn.", 3, True),
        ("decoder.", 1, True),
    ],
)
def test_a_name_that_contradicts_the_rows_rules_a_layer_out(
    prefix: str, blocks: int, fits: bool
) -> None:
    shapes = {f"{prefix}weight_ih": (blocks * 6, 3), f"{prefix}weight_hh": (blocks * 6, 6)}
    found = recognise(shapes, {}, shapes)
    assert bool(found.stacks) == fits and bool(found.foreign) != fits


class Derived(nn.LSTM):
    """Its checkpoint does not say what its forward adds."""


class CoupledLSTM(nn.Module):
    """Torch's names, and equations of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight_ih = nn.Parameter(torch.randn(32, 4))
        self.weight_hh = nn.Parameter(torch.randn(32, 8))


@pytest.mark.parametrize(
    ("layer", "kind", "note"),
    [
        (nn.LSTM(4, 8), "lstm", ""),
        (nn.GRU(4, 8), "gru", ""),  # `lstm` is only its name
        (nn.RNN(4, 8, nonlinearity="relu"), "rnn", ""),
        (nn.GRUCell(4, 8), "gru", ""),
        (Derived(4, 8), "lstm", "Derived, derived from torch.nn"),
        (CoupledLSTM(), None, "test_recurrent.CoupledLSTM)"),
    ],
)
def test_the_class_in_a_whole_module_says_what_a_layer_is(tmp_path, layer, kind, note) -> None:
    torch.save(nn.ModuleDict({"lstm": layer}), tmp_path / "whole.pt")
    found = open_checkpoint(tmp_path / "whole.pt")
    assert [(s.prefix, s.kind) for s in found.stacks] == ([("lstm.", kind)] if kind else [])
    said = " ".join(line for line in found.notes if "torch.nn" in line and "`lstm." in line)
    assert note in said and bool(note) == bool(said)
    assert foreign_layers(found) == (() if kind else ("lstm.weight_* (its class is another)",))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_keeps_the_class_too(tmp_path) -> None:
    model = torch.jit.script(nn.ModuleDict({"lstm": nn.GRU(4, 8), "own": CoupledScript()}))
    model.save(tmp_path / "script.pt")
    found = open_checkpoint(tmp_path / "script.pt")
    assert [(s.prefix, s.kind) for s in found.stacks] == [("lstm.", "gru")]
    assert any("CoupledScript" in line for line in found.notes)


class CoupledScript(CoupledLSTM):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight_ih.t() @ self.weight_hh


@given(st.sampled_from(sorted(LAYERS)), st.integers(1, 9), st.integers(1, 9), st.integers(1, 3))
def test_any_size_is_recognised(kind: str, inputs: int, hidden: int, layers: int) -> None:
    (stack,) = recognised(LAYERS[kind](inputs, hidden, num_layers=layers)).stacks
    assert (stack.kind, stack.input_size, stack.hidden_size) == (kind, inputs, hidden)
    assert stack.num_layers == layers
