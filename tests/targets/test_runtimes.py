"""Files run in other runtimes than the newest ONNX Runtime, by old opsets and both ways of layers.

Eight stacks are one module here, so that each way of writing them is exported once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnxruntime.quantization import quantize_dynamic
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor, nn

import ttcompress
from ttcompress.layers.recurrence import run_scan
from ttcompress.layers.swap import replace_layer
from ttcompress.planning.formats import MpsLayout
from ttcompress.targets.onnx.operators import run_operator
from ttcompress.targets.onnx.portable import all_nodes, lower_opset, lowest_ir
from ttcompress.targets.onnx.sessions import start_session
from ttcompress.targets.onnx.ways import with_ways
from ttcompress.trains.formats import train_of

Outputs = list[NDArray[Any]]
Exports = Callable[..., tuple[ttcompress.Exported, "Eight"]]

STACKS: dict[str, Callable[[], nn.RNNBase]] = {
    "lstm": lambda: nn.LSTM(12, 16, batch_first=True),
    "bidirectional": lambda: nn.LSTM(12, 16, bidirectional=True),
    "stacked": lambda: nn.LSTM(12, 16, num_layers=2),
    "projected": lambda: nn.LSTM(12, 16, proj_size=6),
    "without bias": lambda: nn.LSTM(12, 16, bias=False),
    "gru": lambda: nn.GRU(12, 16, num_layers=2, bidirectional=True),
    "rnn": lambda: nn.RNN(12, 16),
    "relu": lambda: nn.RNN(12, 16, nonlinearity="relu"),
}
X = torch.randn(5, 3, 12, generator=torch.Generator().manual_seed(0))
SIZES = [(steps, batch) for steps in (1, 7, 20) for batch in (1, 4)]


class Eight(nn.Module):
    """All stacks on the same input; of each the output and the last state."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        for name, make in STACKS.items():
            self.add_module(name.replace(" ", "_"), make())

    def forward(self, x: Tensor) -> list[Any]:
        return [layer(x) for layer in self.children()]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exports:
    """Eight stacks in int4, under these options of an export, and the module that they are."""
    folder = tmp_path_factory.mktemp("eight")
    torch.save(Eight().state_dict(), folder / "eight.pt")
    # The first layers as MPO, whose matrices are whole in a graph; "relu" stays a dense weight.
    rules = [
        {"weights": "relu.*", "format": "dense"},
        {"weights": "*_l0", "format": "mpo"},
        {"weights": "recurrent", "format": "mps"},
    ]
    recipe = {"version": 1, "store": "int4", "budget": {"rank": 3}, "rules": rules}
    small = ttcompress.compress(folder / "eight.pt", {**recipe, "default": "keep"})
    module = ttcompress.load_into(Eight(), small).eval()
    assert isinstance(module, Eight)
    made = dict[tuple[Any, ...], ttcompress.Exported]()

    def export(**options: Any) -> tuple[ttcompress.Exported, Eight]:
        key = tuple(options.items())
        if key not in made:
            path = folder / f"{len(made)}.onnx"
            own = ttcompress.OwnModule(Eight(), (X,), ({0: "time", 1: "batch"},))
            (made[key],) = ttcompress.export(small, path, module=own, **options)
        return made[key], module

    return export


def cases() -> Iterator[Tensor]:
    for steps, batch in SIZES:
        yield torch.randn(steps, batch, 12, generator=torch.Generator().manual_seed(steps))


def in_onnxruntime(path: Path) -> list[Outputs]:
    session = start_session(path.read_bytes())
    return [session.run(None, {"x": x.numpy()}) for x in cases()]


def in_openvino(path: Path) -> list[Outputs]:
    openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed")
    core = openvino.Core()
    # On processors with bfloat16 its default is less than float32.
    compiled = core.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return [list(compiled(x.numpy()).to_tuple()) for x in cases()]


def in_torch(module: nn.Module) -> list[Outputs]:
    with torch.no_grad():
        runs = [torch.utils._pytree.tree_leaves(module(x)) for x in cases()]
    return [[leaf.numpy() for leaf in run] for run in runs]


def count_operations(path: Path) -> Counter[str]:
    """How many nodes there are of each kind, those inside Scans included."""
    return Counter(node.op_type for node in all_nodes(onnx.load(path).graph))


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{"layers": "scan", "opset": 15}, {"layers": "lstm", "opset": 17}]
)
def test_onnxruntimes_own_quantisation_finds_the_products(
    exported: Exports, tmp_path: Path, options
) -> None:
    made, _ = exported(**options)
    prepared, rounded = tmp_path / "prepared.onnx", tmp_path / "int8.onnx"
    quant_pre_process(made.file, prepared, skip_symbolic_shape=True)
    quantize_dynamic(prepared, rounded, extra_options={"EnableSubgraph": True})
    before, after = count_operations(prepared), count_operations(rounded)
    assert before["LSTM"] == (5 if options["layers"] == "lstm" else 0)  # not the projected one
    assert after["DynamicQuantizeLSTM"] == before["LSTM"]
    assert after["MatMulInteger"] == before["MatMul"] + before["Gemm"] > 0
    assert not {"MatMul", "Gemm", "LSTM"} & after.keys()


def graph_of(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    """A graph of float `x` (4, 6) in opset 18, whose last node makes `y`."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 6])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", "columns"])
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
    graph = helper.make_graph(nodes, "g", [x], [y], [axes])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


node = helper.make_node
OLDER = {
    "same": [node("Tanh", ["x"], ["y"])],
    "more types": [node("Identity", ["x"], ["y"])],
    "fewer attributes": [
        node("Split", ["x"], ["a", "b", "c"], axis=1, num_outputs=3),
        node("Sum", ["a", "b", "c"], ["y"]),
    ],
    "an input that was an attribute": [node("ReduceMean", ["x", "axes"], ["y"], keepdims=1)],
}


@pytest.mark.parametrize("nodes", OLDER.values(), ids=OLDER)
@pytest.mark.parametrize("opset", [15, 17])
def test_an_older_opset_computes_the_same(nodes, opset) -> None:
    x = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
    model = graph_of(*nodes)
    (wanted,) = start_session(model.SerializeToString()).run(None, {"x": x})
    lower = lower_opset(model, opset)
    lower.ir_version = lowest_ir(lower)
    assert [one.version for one in lower.opset_import] == [opset] and lower.ir_version == 8
    onnx.checker.check_model(lower, full_check=True)
    (found,) = start_session(lower.SerializeToString()).run(None, {"x": x})
    np.testing.assert_array_equal(found, wanted)


def test_an_operator_that_an_opset_lacks_is_named() -> None:
    model = graph_of(node("BitwiseNot", ["x"], ["y"]))
    with pytest.raises(ttcompress.TTCompressError, match=r"opset 17 has no form of BitwiseNot"):
        lower_opset(model, 17)


def trains_of(layer: nn.RNNBase, rank: int | None) -> nn.RNNBase:
    """The layer with factors of this rank in place of its recurrent matrices."""
    trains = {}
    for name in ("weight_ih_l0", "weight_hh_l0") if rank else ():
        rows, columns = layer.get_parameter(name).shape
        cores = torch.randn(1, rows, rank), torch.randn(rank, columns, 1)
        trains[name] = train_of(MpsLayout((rows,), (columns,)), cores)
    return replace_layer(layer, trains) if trains else layer


@pytest.mark.parametrize(
    ("layer", "rank", "options", "said"),
    [
        (nn.LSTM(64, 64), None, {}, "the operator LSTM, estimated 2.9 times as fast as a Scan"),
        (nn.LSTM(64, 64), 4, {}, "the operator LSTM, estimated 2.1 times"),
        (nn.LSTM(512, 512), 32, {}, "Scan, estimated 5.8 times as fast as the operator LSTM"),
        (nn.GRU(64, 64), 4, {}, "the operator GRU"),
        (nn.RNN(512, 512), None, {}, "Scan, estimated 1.6 times as fast as the operator RNN"),
        (nn.LSTM(8, 64, proj_size=8), None, {}, "Scan, for ONNX's LSTM has no projection"),
        (nn.LSTM(64, 64), None, {"layers": "scan"}, "Scan"),
        (nn.LSTM(512, 512), 32, {"layers": "lstm"}, "the operator LSTM"),
        (nn.LSTM(512, 512), None, {"int8": True}, "the operator DynamicQuantizeLSTM, which is ONN"),
        (nn.LSTM(64, 64), 4, {"int8": True}, "Scan, for the operator DynamicQuantizeLSTM would ne"),
        (nn.GRU(64, 64), None, {"int8": True}, "Scan, for ONNX Runtime has no GRU in int8"),
    ],
)
def test_the_faster_way_is_chosen_for_each_layer(layer, rank, options, said) -> None:
    given = {"layers": "auto", "int8": False} | options
    made, ways = with_ways(nn.Sequential(trains_of(layer, rank)), **given)
    assert ways["0", 0].startswith(said)
    own = run_operator if said.startswith("the operator") else run_scan
    assert made[0].exported_runs == (own,)


RUNTIMES = {"onnxruntime": in_onnxruntime, "openvino": in_openvino}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(
    "options",
    [{"layers": "scan", "opset": 15}, {"layers": "lstm", "opset": 17}, {}],
    ids=["scans in opset 15", "operators in opset 17", "chosen"],
)
def test_eight_stacks_are_torchs_in_float(exported: Exports, runtime, options) -> None:
    made, module = exported(**options)
    for found, wanted in zip(RUNTIMES[runtime](made.file), in_torch(module), strict=True):
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_allclose(one, other, atol=2e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize(
    ("runtime", "layers"),
    [("onnxruntime", "scan"), ("openvino", "scan"), ("onnxruntime", "auto")],
)
def test_eight_stacks_are_near_torchs_in_int8(exported: Exports, runtime, layers) -> None:
    made, module = exported(layers=layers, quantize="int8")
    for found, wanted in zip(RUNTIMES[runtime](made.file), in_torch(module), strict=True):
        for one, other in zip(found, wanted, strict=True):
            assert np.linalg.norm(one - other) < 0.1 * np.linalg.norm(other)
