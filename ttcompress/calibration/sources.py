"""Runs calibration data through a model and yields the inputs of each of its layers.

A `ModuleSource` runs a task's model or a copy of the user's, its stacks layer by layer; a
`FileSource` runs each stack on recorded inputs. Activations are not kept: to use them again, run
the data again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from ttcompress.calibration.layerwise import LayerPass, LayerwiseStack
from ttcompress.errors import RecipeError
from ttcompress.layers.evaluating import evaluating
from ttcompress.layers.reparametrised import make_plain
from ttcompress.model.protocol import Model
from ttcompress.model.weights import RecurrentStack
from ttcompress.tasks.batches import run_batch
from ttcompress.tasks.protocol import Batch, State, Task
from ttcompress.tasks.recording import Chunk, Part, read_recording

SEQUENCES = 32
"""Sequences of a file in one batch."""

POSITIONS = 32_768
"""Time steps of each stack of a file that are shown, from all over it: moments need no more."""

TORCH_FORWARDS = (nn.LSTM.forward, nn.GRU.forward, nn.RNN.forward)
"""A stack with another forward is not run layer by layer: the inputs of its layers are unknown."""

Args = tuple[Any, ...]
Kwargs = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Activations:
    """The inputs of the layers in one batch, in the order of their first call.

    For each call, `stacks` has the passes of a stack's layers by prefix, `linears` the inputs of a
    linear layer by path, (positions, features). `embeddings` counts by path how often each row was
    looked up.
    """

    stacks: dict[str, list[tuple[LayerPass, ...]]] = field(default_factory=dict)
    linears: dict[str, list[Tensor]] = field(default_factory=dict)
    embeddings: dict[str, Tensor] = field(default_factory=dict)


class DataSource(Protocol):
    """Calibration data, in `batches` batches at most."""

    batches: int

    def run(self, tensors: Mapping[str, Tensor]) -> Iterator[Activations]:
        """Run the model with these values on every batch; the same batches every time."""
        ...


class ModuleSource:
    """The first batches of a module's data, as a task or a loader gives them.

    They are held in memory: a loader may shuffle, and every run must give the same.

    Args:
        build: makes the module that is run, with any values.
        step: runs it on a batch, and returns the state for the next one.
        stacks: the recurrent layers of the checkpoint.
        batches: all of them.
        most: how many to use.
        place: what gives the batches, for messages.

    Raises:
        RecipeError: there is no batch.
    """

    def __init__(
        self,
        build: Callable[[], nn.Module],
        step: Callable[[nn.Module, Batch, State], State],
        stacks: Sequence[RecurrentStack],
        batches: Iterable[Batch],
        most: int,
        place: str,
    ) -> None:
        self._build, self._step, self._stacks = build, step, stacks
        self._given = tuple(islice(batches, most))
        self.batches = len(self._given)
        if not self._given:
            raise RecipeError(
                f"calibration: {place} has no data to run. Give it some, or omit the calibration."
            )

    def run(self, tensors: Mapping[str, Tensor]) -> Iterator[Activations]:
        """Run once over the batches, carrying the state as in training."""
        model, state = make_plain(self._build().cpu(), tensors), None
        model.load_state_dict(tensors)
        recorder = _Recorder(model, self._stacks, tensors)
        for batch in self._given:
            recorder.found = Activations()
            with evaluating(model):
                state = self._step(model, batch, state)
            yield recorder.found


def task_source(
    task: Task, stacks: Sequence[RecurrentStack], batches: int, seed: int
) -> ModuleSource:
    """The first batches of a task's training data."""

    def step(model: nn.Module, batch: Batch, state: State) -> State:
        return task.outputs(model, batch, state)[1]

    given = task.train_batches(0, seed)
    return ModuleSource(task.build, step, stacks, given, batches, f"task {task.name}")


def loader_source(
    module: nn.Module, stacks: Sequence[RecurrentStack], batches: Iterable[Any], most: int
) -> ModuleSource:
    """The first batches of a user's loader, run through a copy of the module."""

    def step(model: nn.Module, batch: Any, state: State) -> State:
        run_batch(model, batch)

    place = f"the {type(batches).__name__}"
    return ModuleSource(partial(deepcopy, module), step, stacks, batches, most, place)


class _Recorder:
    """Makes the layers of a model record their inputs in `found`, without changing its outputs."""

    def __init__(
        self, model: nn.Module, stacks: Sequence[RecurrentStack], tensors: Mapping[str, Tensor]
    ) -> None:
        self.found = Activations()
        known = _by_path(stacks)
        for path, module in model.named_modules():
            if path in known and type(module).forward in TORCH_FORWARDS:
                note = partial(self._stack, known[path].prefix)
                # Only the call is replaced: the stack keeps all else that it has.
                module.__dict__["forward"] = LayerwiseStack(known[path], tensors, note, like=module)
            elif isinstance(module, nn.Linear):
                module.register_forward_pre_hook(partial(self._linear, path), with_kwargs=True)
            elif isinstance(module, nn.Embedding):
                module.register_forward_pre_hook(partial(self._embedding, path), with_kwargs=True)

    def _stack(self, prefix: str, passes: tuple[LayerPass, ...]) -> None:
        self.found.stacks.setdefault(prefix, []).append(passes)

    def _linear(self, path: str, _: nn.Module, args: Args, kwargs: Kwargs) -> None:
        values = args[0] if args else kwargs["input"]
        self.found.linears.setdefault(path, []).append(values.detach().flatten(0, -2))

    def _embedding(self, path: str, module: nn.Embedding, args: Args, kwargs: Kwargs) -> None:
        indices = (args[0] if args else kwargs["input"]).flatten()
        counts = torch.bincount(indices, minlength=module.num_embeddings)
        before = self.found.embeddings.get(path, torch.zeros_like(counts))
        self.found.embeddings[path] = before + counts


def _by_path(stacks: Sequence[RecurrentStack]) -> dict[str, RecurrentStack]:
    """The stacks that can be run by themselves, by path."""
    return {s.prefix.removesuffix("."): s for s in stacks if not (s.cell or s.raw)}


class FileSource:
    """Recorded inputs of the recurrent layers, of long files a part; see `read_recording`.

    Args:
        path: the file.
        model: the checkpoint.

    Raises:
        InputError, RecipeError: see `read_recording`.
    """

    def __init__(self, path: str | Path, model: Model) -> None:
        self._recorded = read_recording(path, model)
        groups: dict[str, list[tuple[Part, Tensor]]] = {
            prefix: [] for prefix in self._recorded.stacks
        }
        positions = Counter[str]()
        for part in self._recorded.parts():
            positions[part.prefix] += part.positions
            for which in torch.split(torch.arange(part.sequences), SEQUENCES):
                groups[part.prefix].append((part, which))
        self._shown = {
            prefix: some[:: max(1, -(-positions[prefix] // POSITIONS))]
            for prefix, some in groups.items()
        }
        self.batches = sum(map(len, self._shown.values()))

    def run(self, tensors: Mapping[str, Tensor]) -> Iterator[Activations]:
        """Each stack by itself, a few sequences at a time."""
        for prefix, stack in self._recorded.stacks.items():
            passes: list[tuple[LayerPass, ...]] = []
            layerwise = LayerwiseStack(stack, tensors, passes.append)
            for part, which in self._shown[prefix]:
                passes.clear()
                with torch.no_grad():
                    chunk = self._recorded.gather([(part, int(k)) for k in which])
                    layerwise(*_call_of(chunk, stack))
                yield Activations({prefix: passes.copy()})


def _call_of(chunk: Chunk, stack: RecurrentStack) -> tuple[Any, Any]:
    """The arguments of torch's layer for recorded sequences."""
    inputs: Any = chunk.inputs.float()
    if chunk.lengths is not None:
        inputs = pack_padded_sequence(inputs, chunk.lengths, True, enforce_sorted=False)
    return inputs, chunk.state(stack)
