"""Runs calibration data through a model and yields the inputs of each of its layers.

A `TaskSource` runs the task's whole model and a `ModuleSource` a copy of the user's, their stacks
layer by layer; a `FileSource` reads the inputs of the stacks from a file. Activations are not kept:
to use them again, run the data again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ttcompress.calibration.layerwise import LayerPass, LayerwiseStack
from ttcompress.errors import CheckpointError, InputError, RecipeError, unreadable
from ttcompress.layers.evaluating import evaluating
from ttcompress.model.weights import RecurrentStack
from ttcompress.system.files import check_input
from ttcompress.system.safetensors import open_safetensors
from ttcompress.tasks.batches import run_batch
from ttcompress.tasks.protocol import Batch, Task

SEQUENCES = 32
"""Sequences of a file in one batch."""

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


class TaskSource:
    """The first batches of a task's training data.

    Args:
        task: builds the model and runs it.
        stacks: the recurrent layers of the checkpoint.
        batches: how many to use.
        seed: for the order of the task's data.
    """

    def __init__(self, task: Task, stacks: Sequence[RecurrentStack], batches: int, seed: int):
        self._task, self._stacks, self._seed = task, stacks, seed
        self.batches = batches
        if next(self._batches(), None) is None:
            raise RecipeError(
                f"calibration: task {task.name} has no training data. "
                "Give it some, or omit the calibration."
            )

    def run(self, tensors: Mapping[str, Tensor]) -> Iterator[Activations]:
        """Run once over the batches, carrying the state as in training."""
        model, state = self._task.build().cpu(), None
        model.load_state_dict(tensors)
        recorder = _Recorder(model, self._stacks, tensors)
        for batch in self._batches():
            recorder.found = Activations()
            with evaluating(model):
                _, state = self._task.outputs(model, batch, state)
            yield recorder.found

    def _batches(self) -> Iterator[Batch]:
        return islice(self._task.train_batches(0, self._seed), self.batches)


class ModuleSource:
    """The first batches of a user's own data.

    Args:
        module: what is compressed; a copy of it is run.
        stacks: its recurrent layers.
        batches: what a loader yields; see `run_batch`.
        most: how many to use. They are held in memory, because a loader may shuffle.

    Raises:
        RecipeError: there is no batch.
    """

    def __init__(
        self, module: nn.Module, stacks: Sequence[RecurrentStack], batches: Iterable[Any], most: int
    ) -> None:
        self._module, self._stacks = module, stacks
        self._given = tuple(islice(batches, most))
        self.batches = len(self._given)
        if not self._given:
            raise RecipeError(
                f"data: the {type(batches).__name__} yields no batch. Give one that does."
            )

    def run(self, tensors: Mapping[str, Tensor]) -> Iterator[Activations]:
        """Run once over the batches."""
        model = deepcopy(self._module).cpu()
        model.load_state_dict(tensors)
        recorder = _Recorder(model, self._stacks, tensors)
        for batch in self._given:
            recorder.found = Activations()
            with evaluating(model):
                run_batch(model, batch)
            yield recorder.found


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
    """Inputs of the recurrent layers, (batch, time, input), from a safetensors file.

    Args:
        path: a file with one tensor for each layer, named by its path (by any name if single).
        stacks: the recurrent layers of the checkpoint.

    Raises:
        InputError: there is no such file, or safetensors cannot read it.
        RecipeError: a tensor matches no layer, or has another shape.
    """

    def __init__(self, path: str | Path, stacks: Sequence[RecurrentStack]) -> None:
        path = Path(path)
        check_input(path, "a safetensors file")
        try:
            tensors = open_safetensors(path).read()
        except CheckpointError as error:
            fact = str(error).rstrip(".")
            raise InputError(f"{path}: cannot be read as safetensors ({fact}).") from error
        except OSError as error:
            raise unreadable(path, error) from error
        self._inputs = _by_stack(path, tensors, _by_path(stacks))
        self.batches = sum(-(-len(values) // SEQUENCES) for _, values in self._inputs)

    def run(self, tensors: Mapping[str, Tensor]) -> Iterator[Activations]:
        """Each stack by itself, a few sequences at a time."""
        for stack, values in self._inputs:
            passes: list[tuple[LayerPass, ...]] = []
            layerwise = LayerwiseStack(stack, tensors, passes.append)
            for few in torch.split(values, SEQUENCES):
                passes.clear()
                with torch.no_grad():
                    layerwise(few.float())
                yield Activations({stack.prefix: passes.copy()})


def _by_stack(
    path: str | Path, tensors: dict[str, Tensor], known: Mapping[str, RecurrentStack]
) -> list[tuple[RecurrentStack, Tensor]]:
    """The inputs of each stack, their names and shapes checked."""
    if len(tensors) == len(known) == 1:
        tensors = {next(iter(known)): next(iter(tensors.values()))}
    for name, values in tensors.items():
        if name not in known:
            layers = ", ".join(map(repr, known)) or "none"
            raise RecipeError(
                f"{path}: {name} is not a recurrent layer of the model; those are {layers}. "
                "Name each tensor after the layer whose inputs it holds."
            )
        size = known[name].input_size
        if values.dim() != 3 or values.shape[2] != size or not values.is_floating_point():
            raise RecipeError(
                f"{path}: {name}: expected floats of shape (batch, time, {size}), got "
                f"{tuple(values.shape)} of {values.dtype}."
            )
    return [(known[name], values) for name, values in tensors.items()]
