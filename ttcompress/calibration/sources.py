"""Runs calibration data through a model and yields the inputs of each of its layers.

A `ModuleSource` runs a task's model or a copy of the user's, its stacks layer by layer; a
`FileSource` runs each stack on recorded inputs. Activations are not kept: to use them again, run
the data again.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from ttcompress.calibration.layerwise import CellSteps, LayerPass, LayerwiseStack
from ttcompress.errors import RecipeError
from ttcompress.layers.evaluating import evaluating
from ttcompress.layers.reparametrised import make_plain
from ttcompress.model.protocol import Model
from ttcompress.model.weights import RecurrentStack
from ttcompress.tasks.batches import NO_BATCH, check_batches, run_batch
from ttcompress.tasks.evaluation import load_tensors
from ttcompress.tasks.own import blaming
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
        load: makes the module that is run, with the values of a state dict.
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
        load: Callable[[Mapping[str, Tensor]], nn.Module],
        step: Callable[[nn.Module, Batch, State], State],
        stacks: Sequence[RecurrentStack],
        batches: Iterable[Batch],
        most: int,
        place: str,
    ) -> None:
        self._load, self._step, self._stacks = load, step, stacks
        self.given = tuple(islice(batches, most))
        self.batches = len(self.given)
        if not self.given:
            raise RecipeError(
                f"calibration: {place} has no data to run. Give it some, or omit the calibration."
            )

    def run(self, tensors: Mapping[str, Tensor]) -> Iterator[Activations]:
        """Run once over the batches, carrying the state as in training."""
        model, state = self._load(tensors).cpu(), None
        recorder = _Recorder(model, self._stacks, tensors)
        for batch in self.given:
            recorder.begin()
            with evaluating(model):
                state = self._step(model, batch, state)
            yield recorder.finish()


def task_source(
    task: Task, stacks: Sequence[RecurrentStack], batches: int, seed: int
) -> ModuleSource:
    """The first batches of a task's training data."""

    def step(model: nn.Module, batch: Batch, state: State) -> State:
        return task.outputs(model, batch, state)[1]

    given = task.train_batches(0, seed)
    load = partial(load_tensors, task)
    return ModuleSource(load, step, stacks, given, batches, f"task {task.name}")


def loader_source(
    module: nn.Module, stacks: Sequence[RecurrentStack], batches: Iterable[Any], most: int
) -> ModuleSource:
    """The first batches of a user's loader, run through a copy of the module."""

    check_batches("data", batches)

    def step(model: nn.Module, batch: Any, state: State) -> State:
        with blaming("data: a batch does not run", NO_BATCH):
            run_batch(model, batch)

    def load(tensors: Mapping[str, Tensor]) -> nn.Module:
        model = make_plain(deepcopy(module), tensors)
        model.load_state_dict(tensors)
        return model

    place = f"the {type(batches).__name__}"
    return ModuleSource(load, step, stacks, batches, most, place)


class _Recorder:
    """Makes the layers of a model record their inputs in `found`, without changing its outputs."""

    def __init__(
        self, model: nn.Module, stacks: Sequence[RecurrentStack], tensors: Mapping[str, Tensor]
    ) -> None:
        self.begin()
        known = {s.prefix.removesuffix("."): s for s in stacks if not s.raw}
        for path, module in model.named_modules():
            stack = known.get(path)
            if stack is not None and stack.cell and isinstance(module, nn.RNNCellBase):
                note = partial(self._cell, stack.prefix)
                module.register_forward_hook(note, with_kwargs=True)
            elif stack is not None and type(module).forward in TORCH_FORWARDS:
                note = partial(self._stack, stack.prefix)
                # Only the call is replaced: the stack keeps all else that it has.
                module.__dict__["forward"] = LayerwiseStack(stack, tensors, note, like=module)
            elif isinstance(module, nn.Linear):
                module.register_forward_pre_hook(partial(self._linear, path), with_kwargs=True)
            elif isinstance(module, nn.Embedding):
                module.register_forward_pre_hook(partial(self._embedding, path), with_kwargs=True)

    def begin(self) -> None:
        """Forget what was found."""
        self._found, self._cells = Activations(), defaultdict[str, CellSteps](CellSteps)

    def finish(self) -> Activations:
        """What was found since the beginning."""
        cells = {prefix: steps.passes() for prefix, steps in self._cells.items()}
        return replace(self._found, stacks=self._found.stacks | cells)

    def _cell(
        self, prefix: str, module: nn.Module, args: Args, kwargs: Kwargs, output: Any
    ) -> None:
        def call(input: Tensor, hx: Any = None) -> None:
            self._cells[prefix].add(input, hx, output)

        call(*args, **kwargs)

    def _stack(self, prefix: str, passes: tuple[LayerPass, ...]) -> None:
        self._found.stacks.setdefault(prefix, []).append(passes)

    def _linear(self, path: str, _: nn.Module, args: Args, kwargs: Kwargs) -> None:
        values = args[0] if args else kwargs["input"]
        self._found.linears.setdefault(path, []).append(values.detach().flatten(0, -2))

    def _embedding(self, path: str, module: nn.Embedding, args: Args, kwargs: Kwargs) -> None:
        indices = (args[0] if args else kwargs["input"]).flatten()
        counts = torch.bincount(indices, minlength=module.num_embeddings)
        before = self._found.embeddings.get(path, torch.zeros_like(counts))
        self._found.embeddings[path] = before + counts


class FileSource:
    """Recorded inputs of recurrent and linear layers, of long files a part; see `read_recording`.

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
            loops = self._recorded.loops(part.prefix, part.chunk)
            groups[part.prefix] += ((part, which) for which in torch.split(loops, SEQUENCES, 1))
        self._shown = {
            prefix: some[:: max(1, -(-positions[prefix] // POSITIONS))]
            for prefix, some in groups.items()
        }
        linears = sum(map(len, self._recorded.linears.values()))
        self.batches = sum(map(len, self._shown.values())) + linears

    def run(self, tensors: Mapping[str, Tensor]) -> Iterator[Activations]:
        """Each layer by itself, a few sequences at a time."""
        for prefix, stack in self._recorded.stacks.items():
            passes: list[tuple[LayerPass, ...]] = []
            layerwise = LayerwiseStack(stack, tensors, passes.append)
            for part, which in self._shown[prefix]:
                passes.clear()
                with torch.no_grad():
                    chunk = self._recorded.gather([(part, int(k)) for k in which.flatten()])
                    layerwise(*_call_of(chunk, stack))
                if stack.cell:
                    passes[0] = (passes[0][0].in_loops(len(which)),)
                yield Activations({prefix: passes.copy()})
        for path, names in self._recorded.linears.items():
            for name in names:
                yield Activations(linears={path: [self._recorded.read(name).float().flatten(0, 1)]})


def _call_of(chunk: Chunk, stack: RecurrentStack) -> tuple[Any, Any]:
    """The arguments of torch's layer for recorded sequences."""
    inputs: Any = chunk.inputs.float()
    if chunk.lengths is not None:
        inputs = pack_padded_sequence(inputs, chunk.lengths, True, enforce_sorted=False)
    return inputs, chunk.state(stack)
