"""Data and a model's tensors enter; what went into each of its layers leaves.

A task runs its whole model, with a hook before each layer; a file has the inputs of the recurrent
layers themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.utils import rnn

from ttcompress.errors import InputError, RecipeError
from ttcompress.tasks.protocol import Task
from ttcompress.tasks.recurrent_task import measuring
from ttcompress.weights import RecurrentStack


@dataclass(frozen=True, eq=False)
class Sequences:
    """One batch of inputs of a recurrent layer.

    `values` is (batch, time, features); `lengths` (batch,) on the CPU, None where all are full.
    `goes_on` says that the layer was given a state: it goes on from the batch before.
    """

    values: Tensor
    lengths: Tensor | None = None
    goes_on: bool = False

    @property
    def real(self) -> Tensor:  # (batch, time), bool
        """Which positions are no padding."""
        count, time = self.values.shape[:2]
        if self.lengths is None:
            return torch.ones(count, time, dtype=torch.bool)
        return torch.arange(time) < self.lengths[:, None]

    def flat(self, values: Tensor) -> Tensor:  # (batch, time, n) -> (positions, n)
        """The real positions of something that stands beside the values."""
        return values.flatten(0, 1) if self.lengths is None else values[self.real]


@dataclass(frozen=True, eq=False)
class Seen:
    """What went into the layers, in the order of their first call.

    `stacks` has the batches of each stack by its prefix, `linears` the inputs (positions, features)
    of each linear layer by path, `embeddings` how often each row was looked up. `order` names
    stacks (prefix) and linear layers (path).
    """

    stacks: dict[str, list[Sequences]] = field(default_factory=dict)
    linears: dict[str, list[Tensor]] = field(default_factory=dict)
    embeddings: dict[str, Tensor] = field(default_factory=dict)

    @property
    def positions(self) -> int:
        """Time steps of the layer that saw most."""
        counts = [
            sum(b.values[..., 0].numel() for b in batches) for batches in self.stacks.values()
        ]
        return max(counts, default=0)


class Source(Protocol):
    """Calibration data."""

    def seen(self, tensors: Mapping[str, Tensor]) -> Seen:
        """What the layers see where the model has these values."""
        ...


class TaskSource:
    """The first batches of a task's training data.

    Args:
        task: builds the model and runs it.
        stacks: the recurrent layers of the checkpoint.
        batches: how many.
        seed: of the task's order.
    """

    def __init__(self, task: Task, stacks: Sequence[RecurrentStack], batches: int, seed: int):
        self._task, self._stacks = task, stacks
        self._batches = list(islice(task.train_batches(0, seed), batches))
        if not self._batches:
            raise RecipeError(
                f"calibration: task {task.name} has no training data. "
                "Give it some, or take the calibration out."
            )

    def seen(self, tensors: Mapping[str, Tensor]) -> Seen:
        """One pass over the batches, the state carried as in training."""
        model, found, state = self._task.build(), Seen(), None
        model.load_state_dict(tensors)
        handles = [
            module.register_forward_pre_hook(hook, with_kwargs=True)
            for path, module in model.named_modules()
            if (hook := self._hook(path, module, found)) is not None
        ]
        with measuring(model):
            for batch in self._batches:
                _, state = self._task.outputs(model, batch, state)
        for handle in handles:
            handle.remove()
        return found

    def _hook(self, path: str, module: nn.Module, found: Seen) -> Callable[..., None] | None:
        prefixes = {stack.prefix.removesuffix("."): stack.prefix for stack in self._stacks}
        if isinstance(module, nn.RNNBase) and path in prefixes:
            return partial(_note_stack, found, prefixes[path])
        if isinstance(module, nn.Linear):
            return partial(_note_linear, found, path)
        if isinstance(module, nn.Embedding):
            return partial(_note_embedding, found, path)
        return None


def _note_stack(
    found: Seen, prefix: str, module: nn.RNNBase, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    given = dict(zip(("input", "hx"), args, strict=False)) | kwargs
    values, lengths = given["input"], None
    if isinstance(values, rnn.PackedSequence):
        values, lengths = rnn.pad_packed_sequence(values, batch_first=True)
    elif values.dim() == 2:
        values = values[None]
    elif not module.batch_first:
        values = values.transpose(0, 1)
    goes_on = given.get("hx") is not None
    found.stacks.setdefault(prefix, []).append(Sequences(values.detach().cpu(), lengths, goes_on))


def _note_linear(
    found: Seen, path: str, module: nn.Linear, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    values = args[0] if args else kwargs["input"]
    found.linears.setdefault(path, []).append(values.detach().cpu().flatten(0, -2))


def _note_embedding(
    found: Seen, path: str, module: nn.Embedding, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    indices = (args[0] if args else kwargs["input"]).detach().cpu().flatten()
    counts = torch.bincount(indices, minlength=module.num_embeddings)
    found.embeddings[path] = found.embeddings.get(path, torch.zeros_like(counts)) + counts


class FileSource:
    """Inputs of the recurrent layers, (batch, time, input), from a safetensors file.

    Args:
        path: has one tensor for each layer under its path, or one alone for a model with one.
        stacks: the recurrent layers of the checkpoint.

    Raises:
        InputError: no such file, or none that safetensors can read.
        RecipeError: a tensor is of no layer, or of another shape.
    """

    def __init__(self, path: str | Path, stacks: Sequence[RecurrentStack]) -> None:
        try:
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path}: cannot be read as safetensors: {error}") from error
        self._seen = Seen({p: [Sequences(t)] for p, t in _by_prefix(path, tensors, stacks).items()})

    def seen(self, tensors: Mapping[str, Tensor]) -> Seen:
        """The same inputs whatever the model."""
        return self._seen


def _by_prefix(
    path: str | Path, tensors: dict[str, Tensor], stacks: Sequence[RecurrentStack]
) -> dict[str, Tensor]:
    known = {stack.prefix.removesuffix("."): stack for stack in stacks if not stack.cell}
    if len(tensors) == len(known) == 1:
        tensors = {next(iter(known)): next(iter(tensors.values()))}
    for name, values in tensors.items():
        if name not in known:
            layers = ", ".join(map(repr, known)) or "none"
            raise RecipeError(
                f"{path}: {name} is no recurrent layer of the model; these are {layers}. "
                "Name each tensor after the layer whose inputs it holds."
            )
        size = known[name].input_size
        if values.dim() != 3 or values.shape[2] != size or not values.is_floating_point():
            raise RecipeError(
                f"{path}: {name} is {tuple(values.shape)} of {values.dtype}, and floats of "
                f"(batch, time, {size}) are needed."
            )
    return {known[name].prefix: values.float() for name, values in tensors.items()}
