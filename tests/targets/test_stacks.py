"""Recurrent layers exported by themselves: every geometry, format and store, against torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import GraphProto, NodeProto, TensorProto
from torch import nn

import ttcompress
from ttcompress.artifact import CompressedModel
from ttcompress.errors import RecipeError
from ttcompress.workflows.export import output_path

SMALL = {"budget": {"factor": 2}}
EXACT = {"budget": {"tolerance": 0}, "store": "float32"}


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """Those of a graph and of the bodies in it."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from nodes(attribute.g)


def operations(path: Path) -> list[str]:
    return [node.op_type for node in nodes(onnx.load(path).graph)]


class Holder(nn.Module):
    def __init__(self, **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)


GEOMETRIES: dict[str, tuple[nn.RNNBase, int]] = {
    "one layer": (nn.LSTM(6, 8), 1),
    "bidirectional": (nn.LSTM(6, 8, bidirectional=True), 2),
    "stacked": (nn.LSTM(6, 8, num_layers=2), 2),
    "projected": (nn.LSTM(6, 8, proj_size=5), 1),
    "without bias": (nn.LSTM(6, 8, bias=False), 1),
    "gru": (nn.GRU(6, 8, num_layers=2, bidirectional=True), 4),
    "rnn": (nn.RNN(6, 8), 1),
}


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.slow
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_outputs_are_those_of_torchs_layer_at_lengths_never_seen(
    compressed, tmp_path, geometry
) -> None:
    layer, scans = GEOMETRIES[geometry]
    (made,) = ttcompress.export(
        compressed(Holder(rnn=layer), **EXACT), tmp_path / "m.onnx", layers="scan"
    )
    assert operations(made.file).count("Scan") == scans
    assert "Loop" not in operations(made.file)
    running = session(made.file)
    for steps, batch in ((1, 1), (13, 2), (40, 6)):
        inputs = [
            torch.randn([{"time": steps, "batch": batch}.get(size, size) for size in entry.shape])
            for entry in running.get_inputs()
        ]
        state = inputs[1] if len(inputs) == 2 else tuple(inputs[1:])
        with torch.no_grad():
            output, last = layer(inputs[0], state)
        found = running.run(
            None, {e.name: x.numpy() for e, x in zip(running.get_inputs(), inputs, strict=True)}
        )
        wanted = [output, *(last if isinstance(last, tuple) else (last,))]
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4)


def test_names_can_be_read_and_the_file_says_where_it_comes_from(compressed, tmp_path) -> None:
    model = compressed(Holder(lstm=nn.LSTM(6, 8)), **SMALL)
    (made,) = ttcompress.export(model, tmp_path / "m.onnx")
    running = session(made.file)
    shapes = {entry.name: entry.shape for entry in running.get_inputs()}
    assert shapes == {"x": ["time", "batch", 6], "h0": [1, "batch", 8], "c0": [1, "batch", 8]}
    shapes = {entry.name: entry.shape for entry in running.get_outputs()}
    assert shapes == {"y": ["time", "batch", 8], "hn": [1, "batch", 8], "cn": [1, "batch", 8]}

    proto = onnx.load(made.file)
    facts = {entry.key: entry.value for entry in proto.metadata_props}
    assert facts["source_sha256"] == model.report.source["sha256"]
    assert facts["ttcompress"] == ttcompress.__version__ == proto.producer_version
    assert float(facts["compression_factor"]) > 1
    assert not any(node.doc_string or node.metadata_props for node in nodes(proto.graph))
    assert str(Path(ttcompress.__file__).parent).encode() not in made.file.read_bytes()


@pytest.mark.slow
def test_each_of_several_layers_becomes_a_file_of_its_name(compressed, tmp_path) -> None:
    model = compressed(Holder(encoder=nn.LSTM(6, 8), decoder=nn.GRU(8, 4)), **SMALL)
    made = ttcompress.export(model, tmp_path / "m.onnx")
    assert [one.file.name for one in made] == ["m.encoder.onnx", "m.decoder.onnx"]
    assert [one.part for one in made] == ["encoder", "decoder"]
    assert all(one.file.is_file() for one in made)


@pytest.mark.slow
def test_a_cell_becomes_a_layer_that_steps_through_time(compressed, tmp_path) -> None:
    cell = nn.LSTMCell(6, 8)
    (made,) = ttcompress.export(compressed(Holder(cell=cell), **EXACT), tmp_path / "m.onnx")
    x = torch.randn(4, 2, 6)
    hidden = memory = torch.zeros(2, 8)
    with torch.no_grad():
        for step in x:
            hidden, memory = cell(step, (hidden, memory))
    zeros = np.zeros((1, 2, 8), np.float32)
    y = session(made.file).run(["y"], {"x": x.numpy(), "h0": zeros, "c0": zeros})[0]
    np.testing.assert_allclose(y[-1], hidden, atol=1e-4)


@pytest.mark.slow
def test_a_checkpoint_does_not_tell_an_rnns_nonlinearity(compressed, tmp_path) -> None:
    layer = nn.RNN(6, 8, nonlinearity="relu")
    (made,) = ttcompress.export(
        compressed(Holder(rnn=layer), **EXACT),
        tmp_path / "m.onnx",
        nonlinearity="relu",
        layers="scan",
    )
    assert "Relu" in operations(made.file)
    assert "Tanh" not in operations(made.file)


def wide(store: str, format: str = "mps") -> dict[str, Any]:
    return {"format": format, "budget": {"rank": 8}, "store": store}


@pytest.mark.parametrize(
    ("store", "kept"),
    [
        pytest.param("int2", TensorProto.UINT4, marks=pytest.mark.slow),
        ("int4", TensorProto.UINT4),
        pytest.param("int5", TensorProto.UINT8, marks=pytest.mark.slow),
        pytest.param("int8", TensorProto.UINT8, marks=pytest.mark.slow),
        ("coded", TensorProto.INT8),
        pytest.param("float16", TensorProto.FLOAT16, marks=pytest.mark.slow),
        pytest.param("bfloat16", TensorProto.BFLOAT16, marks=pytest.mark.slow),
    ],
)
def test_the_file_holds_what_the_store_holds_in_the_next_of_onnxs_types(
    compressed, tmp_path, store, kept
) -> None:
    model = compressed(Holder(lstm=nn.LSTM(64, 64)), **wide(store))
    (made,) = ttcompress.export(model, tmp_path / "m.onnx")
    values = sum(weight.params_after for weight in model.report.weights)
    name = TensorProto.DataType.Name(kept).lower()
    assert values <= made.holds[name] < 1.1 * values
    assert made.holds["float"] < values / 4
    assert made.largest_difference < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("format", ["mps", "mpo"])
def test_no_dense_copy_is_in_the_file(compressed, tmp_path, format) -> None:
    model = compressed(Holder(lstm=nn.LSTM(64, 64)), **wide("float32", format))
    (made,) = ttcompress.export(model, tmp_path / "m.onnx")
    sizes = [np.prod(tensor.dims) for tensor in onnx.load(made.file).graph.initializer]
    assert max(sizes) < 64 * 4 * 64 / 2
    assert sum(made.holds.values()) < 1.1 * sum(w.params_after for w in model.report.weights) + 512


def test_in_int8_the_products_inside_a_scan_are_in_int8(compressed, tmp_path) -> None:
    model = compressed(Holder(lstm=nn.LSTM(64, 64)), **wide("float32"))
    (made,) = ttcompress.export(model, tmp_path / "m.onnx", quantize="int8")
    (scan,) = [n for n in onnx.load(made.file).graph.node if n.op_type == "Scan"]
    (body,) = [a.g for a in scan.attribute if a.name == "body"]
    inside = [node.op_type for node in body.node]
    assert inside.count("MatMulInteger") == 2
    assert not {"MatMul", "Gemm"} & set(inside)
    assert 0 < made.relative_difference < 0.1
    values = sum(weight.params_after for weight in model.report.weights)
    assert values <= made.holds["int8"] <= values + 4  # a zero point for each factor


def test_a_model_without_recurrent_layers_needs_a_task_or_a_module(compressed, tmp_path) -> None:
    model = compressed(
        Holder(linear=nn.Linear(64, 64)), **SMALL, rules=[{"weights": "linear"}], default="keep"
    )
    with pytest.raises(ttcompress.RecipeError, match="no recurrent layer"):
        ttcompress.export(model, tmp_path / "m.onnx")


class OneBias(nn.LSTMCell):
    """A cell with torch's names and a bias more."""

    def __init__(self) -> None:
        super().__init__(6, 8, bias=False)
        self.bias_all = nn.Parameter(torch.ones(32))


def test_a_layer_that_is_not_torchs_is_refused_by_its_strange_tensors(compressed, tmp_path) -> None:
    model = compressed(Holder(cell=OneBias()), **SMALL)
    found = r"cell.weight_\* \(it also has bias_all\).*ttcompress restore"
    for run in (
        lambda: ttcompress.export(model, tmp_path / "m.onnx"),
        lambda: ttcompress.bench(model),
    ):
        with pytest.raises(ttcompress.RecipeError, match=found):
            run()
    assert not (tmp_path / "m.onnx").exists()


@pytest.mark.slow
def test_beside_a_layer_that_is_not_torchs_the_others_are_run(compressed, tmp_path) -> None:
    model = compressed(Holder(cell=OneBias(), rnn=nn.RNN(6, 8)), **SMALL)
    assert [one.part for one in ttcompress.export(model, tmp_path / "m.onnx")] == ["rnn"]
    timed = ttcompress.bench(model, batches=(1,), steps=2, seconds=0.01)
    assert {row.part for row in timed.rows} == {"rnn"}
    assert "not timed: cell.weight_* (it also has bias_all)" in " ".join(timed.remarks())


@pytest.mark.slow
def test_layers_that_were_kept_are_exported_all_the_same(
    tiny_artifact: Path, tmp_path: Path
) -> None:
    model: CompressedModel = ttcompress.load(tiny_artifact)
    (made,) = ttcompress.export(model, tmp_path / "m.onnx")
    assert made.part == "lstm"


@pytest.mark.parametrize("name", ["../../x", "a/b", "/etc/x"])
def test_a_part_never_leads_to_another_folder(name: str) -> None:
    with pytest.raises(
        RecipeError, match=r"cannot be part of a file's name\. Export the whole model with --task"
    ):
        output_path(Path("model.onnx"), name, 2)
