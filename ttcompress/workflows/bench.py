"""Times a compressed model's recurrent layers against dense ones on this machine: `bench`.

Whatever needs the extra `onnx` is imported where it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ttcompress.artifact import CompressedModel, load
from ttcompress.checkpoint.recurrent import foreign_layers
from ttcompress.errors import RecipeError, TTCompressError
from ttcompress.layers.stacks import dense_layer
from ttcompress.model.geometry import stored_names
from ttcompress.model.weights import RecurrentStack
from ttcompress.results.benchmark import DENSE, SMALL, BenchLayer, Benchmark, TimedRun
from ttcompress.system.progress import Progress, silent
from ttcompress.system.threads import torch_threads
from ttcompress.system.timing import Timing, clock_for, timings
from ttcompress.targets.c.library import States
from ttcompress.targets.c.native import load_native
from ttcompress.targets.registry import find_target
from ttcompress.targets.target import Part
from ttcompress.workflows.export import choose_parts, write_parts

__all__ = ["BenchLayer", "Benchmark", "TimedRun", "Timing", "bench"]

Timed = Callable[[], object]


@dataclass(frozen=True, eq=False)
class Runner:
    """One way to run a layer: `call` prepares a run on (time, batch, input); `bytes` its size."""

    call: Callable[[Tensor], Timed]
    bytes: int


def bench(
    source: str | Path | CompressedModel,
    *,
    batches: Sequence[int] = (1, 8, 32),
    steps: int = 35,
    threads: int = 1,
    seconds: float = 3.0,
    progress: Progress = silent,
) -> Benchmark:
    """Time each recurrent layer, dense and compressed, in torch, ONNX Runtime and as C.

    All ways take turns, so that a busy machine slows all of them; a single thread is timed by its
    CPU time. The dense weights are rebuilt from the artifact: they have the original's shapes, and
    so its cost.

    Args:
        source: an artifact's path, or a `CompressedModel`.
        batches: batch sizes; each is measured.
        steps: sequence length.
        threads: for torch and ONNX Runtime; C has one.
        seconds: spent on each layer and batch.
        progress: receives what is being measured.

    Raises:
        MissingExtraError: the extra `onnx` is not installed.
        RecipeError: a number is not positive, or there is no recurrent layer.
    """
    onnx = find_target("onnx")
    onnx.require()
    for name, value in (("batch", min(batches, default=0)), ("steps", steps), ("threads", threads)):
        if value < 1:
            raise RecipeError(f"bench: {name} must be at least 1, got {value}.")
    compressed = source if isinstance(source, CompressedModel) else load(source)
    clock = clock_for(threads)
    parts = choose_parts(compressed, onnx)
    graphs = {SMALL[1]: write_parts(compressed, onnx, parts, None, progress)}
    left_out = [f"{layer}: not a layer of torch.nn" for layer in foreign_layers(compressed)]
    try:
        graphs[SMALL[2]] = write_parts(compressed, onnx, parts, "int8", silent)
    except TTCompressError as error:  # so rough a model that int8 inputs change its outputs
        left_out.append(f"{SMALL[2]}: {error}")
    natives = {SMALL[3]: None, SMALL[4]: "int8"}
    if reason := find_target("c").cannot_run():
        left_out += [f"{name}: {reason}" for name in natives]
        natives = {}
    layers, rows = [], list[TimedRun]()
    done, total = 0, len(parts) * len(batches)
    for k, (part, stack) in enumerate(zip(parts, compressed.stacks, strict=True)):
        layers.append(_describe(compressed, stack, part.name))
        runners = _dense_runners(compressed, stack, threads)
        runners[SMALL[0]] = Runner(partial(partial, part.module), _stored_bytes(compressed, stack))
        for name, made in graphs.items():
            runners[name] = _graph_runner(made[k].written.files[""], threads)
        for name, quantize in natives.items():
            runners[name] = _native_runner(part, quantize)
        for batch in batches:
            progress("bench", done, total, f"{part.name}, batch {batch}")
            generator = torch.Generator().manual_seed(0)
            x = torch.randn(steps, batch, stack.input_size, generator=generator)
            with torch_threads(threads), torch.inference_mode():
                calls = {name: runner.call(x) for name, runner in runners.items()}
                times = timings(calls, seconds, clock)
            fastest = min(times[name].median for name in DENSE if name in times)
            for name, time in times.items():
                speed_up, size = fastest / time.median, runners[name].bytes
                rows.append(TimedRun(part.name, batch, name, time, speed_up, size))
            done += 1
    progress("bench", total, total)
    return Benchmark(steps, threads, clock, tuple(layers), tuple(rows), tuple(left_out))


def _dense_runners(
    compressed: CompressedModel, stack: RecurrentStack, threads: int
) -> dict[str, Runner]:
    """All dense ways to run a layer with rebuilt weights, by their names in tables.

    The values are not the original's, but the cost is.
    """
    from ttcompress.targets.onnx.dense import dense_int8, dense_model  # the extra

    layer = dense_layer(stack, compressed.tensor, batch_first=False)
    size = 4 * sum(parameter.numel() for parameter in layer.parameters())
    runners = {DENSE[0]: Runner(partial(partial, layer), size)}
    graph = dense_model(layer)
    rounded = None if graph is None else dense_int8(graph)
    for name, model in zip(DENSE[1:], (graph, rounded), strict=True):
        if model is not None:
            runners[name] = _graph_runner(model.SerializeToString(), threads)
    return runners


def _graph_runner(content: bytes, threads: int) -> Runner:
    """Run an ONNX file in ONNX Runtime, from zero states if it takes states."""
    from ttcompress.targets.onnx.sessions import start_session  # the extra

    session = start_session(content, threads)
    states = session.get_inputs()[1:]

    def call(x: Tensor) -> Timed:
        batch = x.shape[1]
        zeros = {s.name: np.zeros((s.shape[0], batch, s.shape[2]), np.float32) for s in states}
        return partial(session.run, None, {"x": x.numpy(), **zeros})

    return Runner(call, len(content))


def _native_runner(part: Part, quantize: str | None) -> Runner:
    """Run a layer as C, from zero states."""
    library = load_native(part, quantize)

    def call(x: Tensor) -> Timed:
        return States(library, x.shape[1]).prepare_run(x.numpy())

    return Runner(call, library.interface.flash)


def _stored_bytes(compressed: CompressedModel, stack: RecurrentStack) -> int:
    """The bytes that the artifact uses for a layer."""
    names = set(stored_names(stack).values())
    weights = [s for s in compressed.weights if names & set(s.weight.names)]
    kept = [
        tensor
        for name, tensor in compressed.kept.items()
        if names & set(compressed.ties.get(name, (name,)))
    ]
    stored = sum(part.bytes for weight in weights for part in weight.parts)
    return stored + sum(tensor.numel() * tensor.element_size() for tensor in kept)


def _describe(compressed: CompressedModel, stack: RecurrentStack, name: str) -> BenchLayer:
    """A layer's size, and the multiply-adds of its matrices before and after."""
    names = set(stored_names(stack).values())
    shapes = [w for w in compressed.report.weights if names & set(w.names)]
    before = sum(w.multiply_adds_before for w in shapes)
    after = sum(w.multiply_adds_after for w in shapes)
    return BenchLayer(name, stack.hidden_size, before / after if after else 1.0)
