"""How fast exported layers run in ONNX Runtime beside what it has itself: prints, tests nothing.

    OMP_NUM_THREADS=1 python tests/tools/bench_onnx.py [--hidden 512 ...] [--divisor 16]
    OMP_NUM_THREADS=1 python tests/tools/bench_onnx.py --layers [--hidden 512 ...]

With `--layers`: each kind of layer as a Scan and as ONNX's own operator, with whole matrices and
with factors of several ranks, which the operator multiplies out; `predicted` is what
`targets/onnx/ways.py` expects of both, and its constants were fitted to this table.

Without: one layer, input = hidden, both matrices at middle rank hidden / 16 (or another divisor,
such as 6.5), 35 steps, one thread: the dense LSTM and its int8, a Scan of the fewest operations
written by hand, and the exported one.

All of a row take turns; times are medians of what the one thread worked, so that what else runs on
the machine, which would interrupt long calls more often than short ones, does not count.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product

import numpy as np
import torch
from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto, helper, numpy_helper
from torch import nn

from ttcompress.layers.recurrence import LayerRun, run_scan
from ttcompress.layers.recurrent import Recurrent
from ttcompress.layers.swap import replace_layer
from ttcompress.planning.formats import MpsLayout
from ttcompress.system.timing import timings
from ttcompress.targets.onnx.convert import convert
from ttcompress.targets.onnx.dense import dense_int8, dense_model
from ttcompress.targets.onnx.operators import run_operator
from ttcompress.targets.onnx.quantize import quantize_model
from ttcompress.targets.onnx.sessions import start_session
from ttcompress.targets.onnx.ways import ratio_of_ways
from ttcompress.targets.parts import stack_call
from ttcompress.trains.formats import train_of

STEPS, SECONDS = 35, 4.0
HIDDEN, DIVISOR = (256, 512, 650, 1024, 1500), 16.0
DIVISORS = (None, 2.0, 4.0, 16.0)


def layer_of(dense: nn.RNNBase, rank: int | None) -> Recurrent:
    """The layer with random factors of this rank in place of its matrices, or with none."""
    trains = {}
    for name in ("weight_ih_l0", "weight_hh_l0") if rank else ():
        rows, columns = dense.get_parameter(name).shape
        cores = torch.randn(1, rows, rank) / rank, torch.randn(rank, columns, 1) / columns
        trains[name] = train_of(MpsLayout((rows,), (columns,)), cores)
    made = replace_layer(dense, trains)
    assert isinstance(made, Recurrent)
    return made.eval()


def exported(layer: Recurrent, run: LayerRun = run_scan, *, int8: bool = False) -> ModelProto:
    """The layer as ONNX."""
    layer.exported_runs = (run,)
    model = convert(layer, stack_call(layer.stack), fold=int8)
    return quantize_model(model) if int8 else model


def value(name: str, *sizes: str | int) -> ValueInfoProto:
    """A float tensor."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(sizes))


def step(hidden: int) -> GraphProto:
    """The body: gates in the order input, forget, output, cell, so that one Sigmoid takes three."""
    node = helper.make_node
    nodes = [
        node("MatMul", ["h", "V"], ["z"]),
        node("MatMul", ["z", "U"], ["share"]),
        node("Add", ["share", "inputs"], ["gates"]),
        node("Split", ["gates", "sizes"], ["three", "cell"], axis=1),
        node("Sigmoid", ["three"], ["open"]),
        node("Tanh", ["cell"], ["candidate"]),
        node("Split", ["open"], ["entry", "forget", "exit"], axis=1, num_outputs=3),
        node("Mul", ["forget", "c"], ["old"]),
        node("Mul", ["entry", "candidate"], ["new"]),
        node("Add", ["old", "new"], ["c_next"]),
        node("Tanh", ["c_next"], ["squashed"]),
        node("Mul", ["exit", "squashed"], ["h_next"]),
        node("Identity", ["h_next"], ["y_step"]),
    ]
    taken = [value("h", "B", hidden), value("c", "B", hidden), value("inputs", "B", 4 * hidden)]
    given = [value(name, "B", hidden) for name in ("h_next", "c_next", "y_step")]
    return helper.make_graph(nodes, "step", taken, given)


def by_hand(hidden: int, rank: int) -> ModelProto:
    """A Scan with factors of the same sizes."""
    shapes = {"Vx": (hidden, rank), "Ux": (rank, 4 * hidden), "V": (hidden, rank)}
    shapes["U"] = (rank, 4 * hidden)
    weights = {n: (0.05 * np.random.randn(*s)).astype(np.float32) for n, s in shapes.items()}
    nodes = [
        helper.make_node("MatMul", ["x", "Vx"], ["middle"]),
        helper.make_node("MatMul", ["middle", "Ux"], ["inputs"]),
        helper.make_node(
            "Scan", ["h0", "c0", "inputs"], ["hn", "cn", "y"], body=step(hidden), num_scan_inputs=1
        ),
    ]
    graph = helper.make_graph(
        nodes,
        "by_hand",
        [value("x", "T", "B", hidden), value("h0", "B", hidden), value("c0", "B", hidden)],
        [value("y", "T", "B", hidden)],
        [
            *(numpy_helper.from_array(weight, name) for name, weight in weights.items()),
            numpy_helper.from_array(np.array([3 * hidden, hidden]), "sizes"),
        ],
    )
    opset = helper.make_opsetid("", 18)
    return helper.make_model(graph, opset_imports=[opset], ir_version=9)


def calls(hidden: int, batch: int, rank: int) -> dict[str, Callable[[], object]]:
    """What is compared, by column."""
    layer = nn.LSTM(hidden, hidden).eval()
    dense, hand = dense_model(layer), by_hand(hidden, rank)
    assert dense is not None
    compressed = layer_of(layer, rank)
    models = {
        "dense": dense,
        "dense int8": dense_int8(dense),
        "hand": hand,
        "ours": exported(compressed),
        "hand int8": quantize_model(hand),
        "ours int8": exported(compressed, int8=True),
    }
    return running(models, batch, hidden)


def running(
    models: Mapping[str, ModelProto | None], batch: int, hidden: int
) -> dict[str, Callable[[], object]]:
    """A call of each model on the same random inputs, from zero states."""
    x = np.random.randn(STEPS, batch, hidden).astype(np.float32)
    found: dict[str, Callable[[], object]] = {}
    for name, model in models.items():
        assert model is not None
        session = start_session(model.SerializeToString())
        feed = {
            i.name: np.zeros([{"batch": batch, "B": batch}.get(s, s) for s in i.shape], np.float32)
            for i in session.get_inputs()[1:]
        }
        found[name] = partial(session.run, None, {"x": x, **feed})
    return found


def compare_ways(sizes: Sequence[int]) -> None:
    """Print the times of each kind of layer as a Scan and as the operator, in Markdown."""
    print("| kind | hidden | rank | batch | Scan | operator | ratio | predicted | int8 ratio |")
    print("|---|" + "--:|" * 8)
    for kind, hidden in product((nn.LSTM, nn.GRU, nn.RNN), sizes):
        dense = kind(hidden, hidden)
        operator = exported(layer_of(dense, None), run_operator)  # however the matrix was made
        for divisor in DIVISORS:
            rank = int(hidden / divisor) if divisor else None
            layer = layer_of(dense, rank)
            models = {"Scan": exported(layer), "operator": operator}
            if rank is None and kind is nn.LSTM:
                models["Scan int8"] = exported(layer, int8=True)
                models["operator int8"] = exported(layer, run_operator, int8=True)
            expected = ratio_of_ways(layer, 0)
            for batch in (1, 8):
                timed = timings(running(models, batch, hidden), SECONDS / 4, "processor")
                us = {name: 1e3 * one.median / STEPS for name, one in timed.items()}
                row = (kind.__name__, hidden, rank or "whole", batch)
                cells = [f"{us['Scan']:.2f}", f"{us['operator']:.2f}"]
                cells += [f"{us['Scan'] / us['operator']:.2f}x", f"{expected:.2f}x"]
                if "Scan int8" in us:
                    cells += [f"{us['Scan int8'] / us['operator int8']:.2f}x"]
                print("|", " | ".join([*map(str, row), *cells]), "|", flush=True)


def main() -> None:
    """Print the table, in Markdown."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hidden", type=int, nargs="+", default=HIDDEN)
    parser.add_argument("--divisor", type=float, default=DIVISOR)
    parser.add_argument("--layers", action="store_true")
    options = parser.parse_args()
    if options.layers:
        return compare_ways(options.hidden)
    columns = ("dense", "dense int8", "hand", "ours", "hand int8", "ours int8")
    ratios = (("dense", "ours"), ("dense", "ours int8"), ("dense int8", "ours int8"))
    print(f"| hidden | batch | {' | '.join(columns)} | {' | '.join(map('/'.join, ratios))} |")
    print("|--:" * (2 + len(columns) + len(ratios)) + "|")
    for hidden in options.hidden:
        for batch in (1, 8):
            found = timings(
                calls(hidden, batch, int(hidden / options.divisor)), SECONDS, "processor"
            )
            ms = {name: timing.median for name, timing in found.items()}
            cells = [f"{hidden}", f"{batch}", *(f"{ms[name]:.3f}" for name in columns)]
            cells += [f"{ms[slow] / ms[fast]:.1f}x" for slow, fast in ratios]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
