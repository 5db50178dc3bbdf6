"""How fast layers compiled as C are beside ONNX Runtime: prints, tests nothing.

    OMP_NUM_THREADS=1 python tests/tools/bench_native.py [--hidden 256 ...] [--batch 1 8] [--stream]

One LSTM layer, input = hidden, both matrices at middle rank hidden / 16 (or another divisor), 35
steps, one thread. The columns are microseconds a step: ONNX Runtime's dense LSTM and its int8, the
exported Scan and its int8, then C in float, int8 and int4, and the dense layer in C in int8.
`--stream` times one step a call from Python instead, `--character FILE` a whole charlm (beside it
the dense LSTM layers alone, of the runtime), and
`--without avx512` compiles for an older processor. All of a row take turns; times are medians of
the processor time of the one thread, so that what else runs on the machine does not count.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import nn

from ttcompress.artifact import load
from ttcompress.layers import LSTM
from ttcompress.layers.stacks import dense_layer
from ttcompress.model.weights import RecurrentStack
from ttcompress.planning.formats import MpsLayout
from ttcompress.system.timing import timings
from ttcompress.targets.c import library
from ttcompress.targets.c.build import make_example, pack_part
from ttcompress.targets.c.library import Interface, Library, States, build_library
from ttcompress.targets.c.writing import write_assembly, write_files
from ttcompress.targets.calls import BATCH, TIME, Call
from ttcompress.targets.onnx.convert import convert
from ttcompress.targets.onnx.dense import dense_int8, dense_model
from ttcompress.targets.onnx.quantize import quantize_model
from ttcompress.targets.onnx.sessions import start_session
from ttcompress.targets.target import Part
from ttcompress.tasks.registry import task_for
from ttcompress.trains.formats import train_of
from ttcompress.trains.train import Train
from ttcompress.workflows.export import export
from ttcompress.workflows.stream import Stream, stream

STEPS, SECONDS, DIVISOR = 35, 3.0, 16.0
CALLS = 20
"""Of one step, between two readings of the clock: one reading takes half a microsecond."""

HIDDEN = (128, 256, 512, 650, 1024, 1500)
RUNTIME = ("ort dense", "ort int8", "scan", "scan int8")
OURS = ("c", "c int8", "c int4", "dense c int8")
QUANTIZE = {"c": None, "c int8": "int8", "c int4": "int4", "dense c int8": "int8"}
FACTS = {"ttcompress": "-", "source_sha256": "-"}


def factored(dense: nn.LSTM, rank: int) -> LSTM:
    """The layer with random factors in place of its matrices."""
    trains: dict[str, Train | torch.Tensor] = {}
    for name in ("weight_ih_l0", "weight_hh_l0"):
        rows, columns = dense.get_parameter(name).shape
        cores = (
            torch.randn(1, rows, rank) / rank**0.5,
            torch.randn(rank, columns, 1) / columns**0.5,
        )
        trains[name] = train_of(MpsLayout((rows,), (columns,)), cores)
    return LSTM.from_dense(dense, trains).eval()


def as_part(layer: nn.LSTM) -> Part:
    """The layer as an export sees it; its matrices are its own."""
    hidden = layer.hidden_size
    state = (torch.zeros(1, 3, hidden), torch.zeros(1, 3, hidden))
    axes = ({0: TIME, 1: BATCH}, {1: BATCH}, {1: BATCH})
    call = Call((torch.zeros(5, 3, hidden), state), axes, ("x", "h0", "c0"), ("y", "hn", "cn"))
    return Part("", layer, call, (), RecurrentStack("", "lstm", layer.input_size, hidden))


def sessions(dense: nn.LSTM, small: LSTM) -> dict[str, bytes]:
    """The ONNX models."""
    call = as_part(dense).call
    plain = dense_model(dense)
    assert plain is not None
    rounded = dense_int8(plain)
    assert rounded is not None
    models = (
        plain,
        rounded,
        convert(small, call, fold=False),
        quantize_model(convert(small, call, fold=True)),
    )
    return {k: m.SerializeToString() for k, m in zip(RUNTIME, models, strict=True)}


def compiled(part: Part, quantize: str | None, folder: Path) -> Library:
    """The layer as C."""
    packed = pack_part(part, quantize)
    files = write_files(packed, "model", FACTS, make_example(part), weights=False)
    files |= write_assembly(packed, "model")  # a compiler takes minutes for 18 million numbers
    path = folder / f"{len(list(folder.iterdir()))}.so"
    sources = ("model.c", "model_weights.S")
    build_library(files, "model", path, sources=sources, flags=library.FAST)
    return Library(path, Interface.read(files))


def calls(
    hidden: int, rank: int, batch: int, steps: int, folder: Path
) -> dict[str, Callable[[], object]]:
    """What is compared, by column."""
    torch.manual_seed(0)
    dense = nn.LSTM(hidden, hidden).eval()
    small = factored(dense, rank)
    x = np.random.default_rng(0).standard_normal((steps, batch, hidden)).astype(np.float32)
    found: dict[str, Callable[[], object]] = {}
    for name, model in sessions(dense, small).items():
        session = start_session(model)
        feed = {
            i.name: np.zeros([batch if s == "batch" else s for s in i.shape], np.float32)
            for i in session.get_inputs()[1:]
        }
        found[name] = partial(session.run, None, {"x": x, **feed})
    for name, quantize in QUANTIZE.items():
        module = dense if name.startswith("dense") else small
        made = compiled(as_part(module), quantize, folder)
        if steps > 1:
            found[name] = States(made, batch).prepare_run(x)
        else:
            found[name] = partial(Stream(made, batch).step, x[0, 0] if batch == 1 else x[0])
    return found


def several(call: Callable[[], object]) -> None:
    """Call it `CALLS` times."""
    for _ in range(CALLS):
        call()


def print_layers(options: argparse.Namespace) -> None:
    """A row for each size: times, and how many times as fast as the best of ONNX Runtime."""
    steps, each = (1, CALLS) if options.stream else (STEPS, STEPS)
    columns = (*RUNTIME, *OURS)
    ratios = ("c", "c int8", "c int4", "dense c int8 / ort int8")
    print(f"{platform.processor() or platform.machine()}, flags {' '.join(library.FAST)}\n")
    print(f"| hidden | batch | {' | '.join(columns)} | {' | '.join(ratios)} |")
    print("|--:" * (2 + len(columns) + len(ratios)) + "|")
    for hidden in options.hidden:
        for batch in options.batch:
            rank = int(hidden / options.divisor)
            with TemporaryDirectory() as folder:
                made = calls(hidden, rank, batch, steps, Path(folder))
                if options.stream:
                    made = {name: partial(several, call) for name, call in made.items()}
                found = timings(made, options.seconds, "processor")
            us = {name: 1000 * timing.median / each for name, timing in found.items()}
            best = min(us[name] for name in RUNTIME)
            cells = [f"{us[name]:.2f}" for name in columns]
            cells += [f"{best / us[name]:.1f}x" for name in OURS[:3]]
            cells.append(f"{us['ort int8'] / us['dense c int8']:.1f}x")
            print(f"| {hidden} | {batch} | {' | '.join(cells)} |", flush=True)


def print_characters(path: Path, options: argparse.Namespace) -> None:
    """Microseconds a character from Python: a whole model, streamed, in ONNX Runtime and in C."""
    compressed = load(path)
    task = task_for(compressed, "charlm")
    made: dict[str, Callable[[], object]] = {}
    with TemporaryDirectory() as folder:
        for name, quantize in (("ort", None), ("ort int8", "int8")):
            output = Path(folder) / f"{name}.onnx"
            export(compressed, output, task=task, quantize=quantize)
            session = start_session(output.read_bytes())
            feed = {
                i.name: np.zeros([1 if s == "batch" else s for s in i.shape], np.float32)
                for i in session.get_inputs()[1:]
            }
            made[name] = partial(session.run, None, {"input": np.zeros((1, 1), np.int64), **feed})
        (stack,) = compressed.stacks
        plain = dense_model(dense_layer(stack, compressed.tensor, batch_first=False))
        assert plain is not None
        dense = {"lstm": plain, "lstm int8": dense_int8(plain)}
        for name, model in dense.items():
            assert model is not None
            session = start_session(model.SerializeToString())
            x = np.zeros((1, 1, stack.input_size), np.float32)
            states = session.get_inputs()[1:]
            zeros = {s.name: np.zeros((s.shape[0], 1, s.shape[2]), np.float32) for s in states}
            made[f"ort {name} alone"] = partial(session.run, None, {"x": x, **zeros})
        for name, quantize in (("c", "none"), ("c int8", "int8"), ("c int4", "int4")):
            made[name] = partial(stream(compressed, quantize=quantize).step, 7)
        made = {name: partial(several, call) for name, call in made.items()}
        found = timings(made, options.seconds, "processor")
    for name, timing in found.items():
        print(f"{name}: {1000 * timing.median / CALLS:.2f} us a character")


def main() -> None:
    """Print the tables, in Markdown."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hidden", type=int, nargs="+", default=HIDDEN)
    parser.add_argument("--batch", type=int, nargs="+", default=[1])
    parser.add_argument("--divisor", type=float, default=DIVISOR)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--stream", action="store_true", help="one step a call from Python")
    parser.add_argument("--without", nargs="*", default=[], help="instruction sets not to use")
    parser.add_argument("--character", type=Path, help="an artifact of charlm, streamed whole")
    options = parser.parse_args()
    if "avx512" in options.without:
        options.without += ["avx512f"]
    library.FAST += tuple(f"-mno-{name}" for name in options.without if name != "avx512")
    if options.character:
        print_characters(options.character, options)
    else:
        print_layers(options)


if __name__ == "__main__":
    main()
