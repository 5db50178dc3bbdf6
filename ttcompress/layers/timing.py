"""Recurrent layers of several models enter; how long each takes, measured in turn, leaves."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median

import torch
from torch import Tensor, nn

from ttcompress.layers.stacks import recurrent_module
from ttcompress.layers.swap import replace_layer
from ttcompress.model.geometry import stored_names
from ttcompress.model.weights import RecurrentStack
from ttcompress.trains.train import Train

STEPS = 35
_REPEATS = 9


def layers_with(
    stacks: Sequence[RecurrentStack], content: Mapping[str, Train | Tensor]
) -> list[nn.Module]:
    """Every recurrent layer with these tensors, in float32: torch's own, or ours with trains.

    A cell becomes a layer that steps through time.
    """
    layers = []
    for stack in stacks:
        module: nn.Module = recurrent_module(stack)
        tensors = {own: content[name] for own, name in stored_names(stack).items()}
        dense = {name: t.float() for name, t in tensors.items() if isinstance(t, Tensor)}
        if len(dense) == len(tensors):
            module.load_state_dict(dense)
        else:
            module = replace_layer(module, tensors | dense)
        layers.append(module.eval())
    return layers


def milliseconds(
    stacks: Sequence[RecurrentStack], models: Mapping[str, Sequence[nn.Module]]
) -> dict[str, float]:
    """The median time of `STEPS` steps at batch 1 through all layers of each model, one thread.

    Models are timed in turn, again and again, so that a busy moment falls on all of them.
    """
    inputs = [torch.randn(1, STEPS, stack.input_size) for stack in stacks]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _timed({name: _run(layers, inputs) for name, layers in models.items()})
    finally:
        torch.set_num_threads(threads)


def _run(layers: Sequence[nn.Module], inputs: Sequence[Tensor]) -> Callable[[], None]:
    def run() -> None:
        with torch.no_grad():
            for layer, values in zip(layers, inputs, strict=True):
                layer(values)

    return run


def _timed(runs: Mapping[str, Callable[[], None]]) -> dict[str, float]:
    for run in runs.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(_REPEATS):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: 1e3 * median(found) for name, found in times.items()}
