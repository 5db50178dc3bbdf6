"""A compressed model enters; how fast its recurrent layers run, beside dense ones, leaves.

Needs the extra `onnx`, and is imported only where that is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from onnx import ModelProto
from torch import Tensor, nn

from ttcompress.artifact import CompressedModel
from ttcompress.errors import TTCompressError
from ttcompress.layers.stacks import recurrent_module
from ttcompress.model.geometry import stored_names
from ttcompress.model.weights import RecurrentStack
from ttcompress.results.benchmark import DENSE, SMALL, BenchLayer, TimedRun
from ttcompress.system.progress import Progress, silent
from ttcompress.system.timing import Clock, timings
from ttcompress.targets.onnx.checking import start_session
from ttcompress.targets.onnx.dense import dense_int8, dense_model
from ttcompress.targets.onnx.make import Made, Wanted, make
from ttcompress.targets.onnx.stacks import recurrent_parts

Timed = Callable[[], object]


@dataclass(frozen=True)
class BenchConditions:
    """Under what all calls run: every number is of the time steps, threads and seconds here."""

    batches: Sequence[int]
    steps: int
    threads: int
    seconds: float
    clock: Clock


@dataclass(frozen=True, eq=False)
class Runner:
    """One way to run a layer: what makes a call for inputs (time, batch, input), and its bytes."""

    call: Callable[[Tensor], Timed]
    bytes: int


def measure(
    compressed: CompressedModel, conditions: BenchConditions, progress: Progress
) -> tuple[list[BenchLayer], list[TimedRun], list[str]]:
    """Every recurrent layer with every batch, all ways to run it in turns; what cannot run."""
    floats = make(compressed, Wanted(), progress)
    eights: Sequence[Made | None] = [None] * len(floats)
    left_out = []
    try:
        eights = make(compressed, Wanted(int8=True), silent)
    except TTCompressError as error:  # a model so rough that int8 inputs change its outputs
        left_out.append(f"{SMALL[2]}: {error}")
    plain = recurrent_parts(compressed, few_bits=False)
    layers: list[BenchLayer] = []
    found: list[TimedRun] = []
    total, done = len(floats) * len(conditions.batches), 0
    for stack, one, eight, part in zip(compressed.stacks, floats, eights, plain, strict=True):
        runners = _runners(compressed, stack, part.module, one, eight, conditions.threads)
        layers.append(_layer(compressed, stack, part.name))
        for batch in conditions.batches:
            progress("bench", done, total, f"{part.name}, batch {batch}")
            found += _measured(part.name, batch, stack, runners, conditions)
            done += 1
    progress("bench", total, total)
    return layers, found, left_out


def _measured(
    part: str, batch: int, stack: RecurrentStack, runners: Mapping[str, Runner], at: BenchConditions
) -> Iterator[TimedRun]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(at.steps, batch, stack.input_size, generator=generator)
    with _threads(at.threads), torch.inference_mode():
        calls = {name: runner.call(x) for name, runner in runners.items()}
        times = timings(calls, at.seconds, at.clock)
    fastest = min(times[name].median for name in DENSE if name in times)
    for name, time in times.items():
        yield TimedRun(part, batch, name, time, fastest / time.median, runners[name].bytes)


def _runners(
    compressed: CompressedModel,
    stack: RecurrentStack,
    module: nn.Module,
    one: Made,
    eight: Made | None,
    threads: int,
) -> dict[str, Runner]:
    """All ways there are for this kind of layer, by the names in tables."""
    dense = _dense_layer(compressed, stack)
    float_bytes = 4 * sum(p.numel() for p in dense.parameters())
    runners = {DENSE[0]: Runner(partial(partial, dense), float_bytes)}
    graph = dense_model(dense)
    if graph is not None:
        runners[DENSE[1]] = _dense_runner(graph, threads)
        if (rounded := dense_int8(graph)) is not None:
            runners[DENSE[2]] = _dense_runner(rounded, threads)
    runners[SMALL[0]] = Runner(partial(partial, module), _stored_bytes(compressed, stack))
    for name, made in zip(SMALL[1:], (one, eight), strict=True):
        if made is not None:
            runners[name] = _small_runner(made, threads)
    return runners


def _dense_runner(model: ModelProto, threads: int) -> Runner:
    content = model.SerializeToString()
    session = start_session(content, threads)
    return Runner(lambda x: partial(session.run, None, {"x": x.numpy()}), len(content))


def _small_runner(made: Made, threads: int) -> Runner:
    session = start_session(made.content, threads)
    states = session.get_inputs()[1:]

    def call(x: Tensor) -> Timed:
        batch = x.shape[1]
        zeros = {s.name: np.zeros((s.shape[0], batch, s.shape[2]), np.float32) for s in states}
        return partial(session.run, None, {"x": x.numpy(), **zeros})

    return Runner(call, len(made.content))


def _dense_layer(compressed: CompressedModel, stack: RecurrentStack) -> nn.RNNBase:
    """torch's layer with the weights rebuilt: other values than the original's, the same cost."""
    layer = recurrent_module(stack)
    layer.batch_first = False
    tensors = {own: compressed.tensor(name) for own, name in stored_names(stack).items()}
    layer.load_state_dict(tensors)
    return layer.eval()


def _stored_bytes(compressed: CompressedModel, stack: RecurrentStack) -> int:
    """What the artifact takes for the layer."""
    names = set(stored_names(stack).values())
    weights = [s for s in compressed.weights if names & set(s.weight.names)]
    kept = [
        tensor
        for name, tensor in compressed.kept.items()
        if names & set(compressed.ties.get(name, (name,)))
    ]
    stored = sum(weight.bytes for weight in weights)
    return stored + sum(tensor.numel() * tensor.element_size() for tensor in kept)


def _layer(compressed: CompressedModel, stack: RecurrentStack, name: str) -> BenchLayer:
    """Its size, and the multiply-adds of its matrices before and after."""
    names = set(stored_names(stack).values())
    shapes = [w for w in compressed.report.weights if names & set(w.names)]
    before = sum(w.multiply_adds_before for w in shapes)
    after = sum(w.multiply_adds_after for w in shapes)
    return BenchLayer(name, stack.hidden_size, before / after if after else 1.0)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
