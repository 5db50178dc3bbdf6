"""The task `recorded`: a compressed model learns to answer as the original does on recorded inputs.

Neither labels nor the model's code are needed: see `record` for the file. Each recurrent stack runs
by itself on what it was given. Where the checkpoint has one linear layer behind it and one knows
what that layer's outputs are, these are compared, else the stack's own.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils import _pytree as pytree

from ttcompress.errors import RecipeError
from ttcompress.layers.evaluating import evaluating
from ttcompress.layers.recurrent_model import place_module
from ttcompress.layers.stacks import recurrent_cell, recurrent_module
from ttcompress.layers.structure import Structure, structure_of
from ttcompress.model.geometry import stored_names
from ttcompress.model.protocol import Model
from ttcompress.model.weights import RecurrentStack
from ttcompress.tasks.likeness import (
    Likeness,
    binary_divergence,
    class_divergence,
    likeness_metrics,
    squared_error,
)
from ttcompress.tasks.protocol import Metric, OutputKind, State, detach
from ttcompress.tasks.recording import Chunk, Part, Recorded, read_recording
from ttcompress.tasks.recurrent_task import generator_of

HELD_OUT, MOST_HELD_OUT = 10, 65_536
"""One sequence in this many is only measured on, and of long files fewer: so many time steps."""

OUTPUT_ERROR = Metric("output_error", higher_is_better=False)
STATE_ERROR = Metric("state_error", higher_is_better=False)


@dataclass(frozen=True)
class Head:
    """The linear layer behind a stack: its path, and what its outputs are."""

    path: str
    kind: OutputKind


@dataclass(frozen=True, eq=False)
class Window:
    """Some steps of parallel sequences of one stack; `fresh` where no state is carried."""

    prefix: str
    chunk: Chunk
    fresh: bool


class RecordedTask:
    """Compares a model with the original on recorded inputs.

    Metrics are `output_error` and `state_error`: the root mean squared error of the outputs and of
    the stacks' last states over the deviation of the original's; before them, where a linear layer
    of classes is recognised, its `divergence` and `agreement`. Outputs are those of the linear
    layer of values behind a stack, or the stack's own.

    Args:
        model: the original.
        path: the file of recorded inputs.
        batch: sequences in a batch.
        steps: time steps from one update to the next.

    Raises:
        InputError: there is no such file, or it cannot be read.
        RecipeError: it was recorded from another model, or has too little to hold some out.
    """

    name = "recorded"
    labelled = False

    def __init__(self, model: Model, path: str | Path, *, batch: int = 16, steps: int = 64) -> None:
        structure = structure_of(model)
        self._recorded = read_recording(path, model)
        self._batch, self._steps = batch, steps
        self._stacks = {s.prefix: s for s in model.stacks if s.prefix in self._recorded.stacks}
        self._heads = {
            prefix: head
            for prefix, stack in self._stacks.items()
            if (head := find_head(structure, stack, self._recorded))
        }
        paths = [head.path for head in self._heads.values()]
        self._biases = {path: f"{path}.bias" in structure.shapes for path in paths}
        self._sizes = {path: structure.shapes[f"{path}.weight"] for path in paths}
        self.covers = frozenset(self.build().state_dict())
        kinds = [head.kind for head in self._heads.values()]
        self._predicts = next((kind for kind in kinds if kind != "values"), None)
        named = likeness_metrics(self._predicts) if self._predicts else ()
        self.metrics = (*named, OUTPUT_ERROR, STATE_ERROR)
        tensors = model.state_dict()
        self._original = self.build()
        self._original.load_state_dict({name: tensors[name] for name in self.covers})
        self._units: dict[str, Tensor] = {}
        self._parts = tuple(self._recorded.parts())
        self._sequences = sum(part.sequences for part in self._parts)
        rarely = sum(part.positions for part in self._parts) // MOST_HELD_OUT
        self._every = min(max(HELD_OUT, rarely), self._sequences)
        alike: dict[object, list[Tensor]] = {}
        for part in self._parts:
            numbers = torch.arange(part.first, part.first + part.sequences)
            alike.setdefault(self._recorded.shape_of(part), []).append(numbers)
        self._alike = [torch.cat(numbers) for numbers in alike.values()]
        self.batches_per_epoch = sum(map(self._count_windows, self._batches(False, None)))
        if not self.batches_per_epoch or not self._batches(True, None):
            raise RecipeError(
                f"{path}: has {self._sequences} sequence, but at least 2 are needed: one to train "
                "on and one to measure on. Record more."
            )

    def build(self) -> nn.Module:
        """Build the stacks and the linear layers behind them, with any values."""
        root = nn.Module()
        for prefix, stack in self._stacks.items():
            layer = recurrent_cell(stack) if stack.cell else recurrent_module(stack)
            if not prefix:
                return layer  # the model itself, with nothing behind it
            place_module(root, prefix.removesuffix("."), layer)
        for path, (rows, columns) in self._sizes.items():
            place_module(root, path, nn.Linear(columns, rows, bias=self._biases[path]))
        return root

    def train_batches(self, epoch: int, seed: int) -> Iterator[Window]:
        """Windows of the sequences that are not held out, in another order in every epoch."""
        return self._windows(held_out=False, generator=generator_of(epoch, seed))

    def outputs(self, model: nn.Module, batch: Window, state: State) -> tuple[Tensor, State]:
        """What is compared, at the steps that are not padding, and the state after them."""
        found, after = self._run(model, batch, state)
        if head := self._heads.get(batch.prefix):
            found = model.get_submodule(head.path)(found)
        return found, after

    def loss(self, outputs: Tensor, batch: Window) -> Tensor:
        """There are no labels.

        Raises:
            RecipeError: always.
        """
        raise RecipeError(f"task {self.name}: has no labels. Train with `distill: 1`.")

    def distillation(self, outputs: Tensor, original: Tensor, batch: Window) -> Tensor:
        """The divergence of predictions, or the squared error in units of the variance."""
        head = self._heads.get(batch.prefix)
        if head is not None and head.kind == "classes":
            return class_divergence(outputs, original, 1.0)
        if head is not None and head.kind == "binary":
            return binary_divergence(outputs, original, 1.0)
        if batch.prefix not in self._units:
            variance = original.var(0, correction=0).mean()
            self._units[batch.prefix] = variance.clamp_min(torch.finfo(torch.float32).tiny)
        return squared_error(outputs, original, self._units[batch.prefix])

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Every metric on the sequences that are held out."""
        predictions = Likeness(self._predicts or "classes")
        outputs, states = Likeness("values"), Likeness("values")
        mine: State = None
        theirs: State = None
        with evaluating(model), evaluating(self._original):
            for window in self._windows(held_out=True):
                found, mine = self._run(model, window, mine)
                wanted, theirs = self._run(self._original, window, theirs)
                for one, other in zip(_members(mine), _members(theirs), strict=True):
                    states.add(one.flatten(0, -2), other.flatten(0, -2))
                if head := self._heads.get(window.prefix):
                    pair = ((model, found), (self._original, wanted))
                    mapped = [m.get_submodule(head.path)(values) for m, values in pair]
                    if head.kind == "values":
                        found, wanted = mapped
                    else:
                        predictions.add(*mapped)
                outputs.add(found, wanted)
        errors = {
            OUTPUT_ERROR.name: outputs.figures()["output_error"],
            STATE_ERROR.name: states.figures()["output_error"],
        }
        return (predictions.figures() if self._predicts else {}) | errors

    def _run(self, model: nn.Module, window: Window, state: State) -> tuple[Tensor, State]:
        """The outputs (positions, output) of a stack without padding, and its state after them."""
        stack, chunk = self._stacks[window.prefix], window.chunk
        layer = model.get_submodule(window.prefix.removesuffix(".")) if window.prefix else model
        device = next(model.parameters()).device
        inputs = chunk.inputs.to(device).float()
        if window.fresh:
            state = pytree.tree_map_only(Tensor, lambda t: t.to(device), chunk.state(stack))
        if stack.cell:
            first = None if state is None else [member[0] for member in _members(state)]
            given = first if first is None or stack.kind == "lstm" else first[0]
            after = layer(inputs[:, 0], given)
            members = tuple(member.detach()[None] for member in _members(after))
            found = after[0] if isinstance(after, tuple) else after
            return found, members if stack.kind == "lstm" else members[0]
        if chunk.lengths is None:
            found, after = layer(inputs, state)
            return found.flatten(0, 1), detach(after)
        packed = pack_padded_sequence(inputs, chunk.lengths, True, enforce_sorted=False)
        found, after = layer(packed, state)
        padded, lengths = pad_packed_sequence(found, batch_first=True)
        real = torch.arange(padded.shape[1])[None] < lengths[:, None]
        return padded[real.to(device)], detach(after)

    def _windows(
        self, *, held_out: bool, generator: torch.Generator | None = None
    ) -> Iterator[Window]:
        """Windows of all stacks; without a generator in the order of the file.

        Sequences of all chunks are mixed: neighbours in a file may be much alike.
        """
        for numbers in self._batches(held_out, generator):
            chosen = [self._find(number) for number in numbers.tolist()]
            yield from self._cut(chosen[0][0].prefix, self._recorded.gather(chosen))

    def _batches(self, held_out: bool, generator: torch.Generator | None) -> list[Tensor]:
        """The numbers of the sequences that run together."""
        batches: list[Tensor] = []
        for numbers in self._alike:
            is_held_out = numbers % self._every == self._every - 1
            mine = numbers[is_held_out == held_out]
            if generator is not None:
                mine = mine[torch.randperm(len(mine), generator=generator)]
            batches += torch.split(mine, self._batch) if len(mine) else ()
        if generator is None:
            return batches
        return [batches[k] for k in torch.randperm(len(batches), generator=generator).tolist()]

    def _find(self, number: int) -> tuple[Part, int]:
        """The part that a sequence is in, and its place there."""
        part = self._parts[bisect_right(self._parts, number, key=lambda part: part.first) - 1]
        return part, number - part.first

    def _count_windows(self, numbers: Tensor) -> int:
        """Into how many a batch of sequences is cut."""
        part, _ = self._find(int(numbers[0]))
        prefix, steps, has_lengths, _ = self._recorded.shape_of(part)
        return 1 if has_lengths or self._stacks[prefix].bidirectional else -(-steps // self._steps)

    def _cut(self, prefix: str, chunk: Chunk) -> Iterator[Window]:
        """Parallel sequences, a window of steps after the other."""
        if chunk.lengths is not None or self._stacks[prefix].bidirectional:
            yield Window(prefix, chunk, fresh=True)
            return
        for k, inputs in enumerate(torch.split(chunk.inputs, self._steps, 1)):
            yield Window(prefix, replace(chunk, inputs=inputs), fresh=k == 0)


def find_head(structure: Structure, stack: RecurrentStack, recorded: Recorded) -> Head | None:
    """The linear layer behind a stack, if there is just one, and what its outputs are.

    The recording says what they are, or they are classes where there are as many symbols: in an
    embedding, or as one-hot inputs. Otherwise nothing says that the layer answers at each step.
    """
    own = {stack.prefix + name for name in stored_names(stack).values()}
    heads = [
        name.removesuffix(".weight")
        for name, role in structure.roles.items()
        if name not in own
        and name.endswith(".weight")
        and structure.shapes[name][1] == stack.output_size
        and (role == "linear" or any(name in names for names in structure.ties))
    ]
    if len(heads) != 1 or not stack.prefix:
        return None
    rows = structure.shapes[f"{heads[0]}.weight"][0]
    tables = {structure.shapes[n][0] for n, role in structure.roles.items() if role == "embedding"}
    inputs = recorded.chunk(stack.prefix, 0).inputs
    if bool((inputs.amax(-1) == 1).all() and (inputs.count_nonzero(-1) == 1).all()):
        tables.add(stack.input_size)
    kind = recorded.predicts or ("classes" if rows in tables else None)
    return None if kind is None or (kind == "classes" and rows == 1) else Head(heads[0], kind)


def _members(state: State) -> Sequence[Tensor]:
    return (state,) if isinstance(state, Tensor) else tuple(state)
