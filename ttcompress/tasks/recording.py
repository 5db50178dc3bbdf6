"""Reads a file of recorded inputs, chunk by chunk: `read_recording`.

`record` writes such files; one by hand needs only a tensor (batch, time, input) for each recurrent
layer, under the layer's path (or any name if the model has a single layer).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ttcompress.errors import CheckpointError, InputError, RecipeError, unreadable
from ttcompress.layers.stacks import dense_layer
from ttcompress.model.protocol import Model
from ttcompress.model.weights import RecurrentStack
from ttcompress.system.files import check_input
from ttcompress.system.json import read_json
from ttcompress.system.safetensors import Contents, open_safetensors
from ttcompress.system.text import shape_text
from ttcompress.tasks.protocol import OUTPUT_KINDS, OutputKind, State
from ttcompress.tasks.record import RECORD, VERSION, prefix_of

STRANGE = 0.05
"""Relative difference of outputs above which a recording is of another model. That of inputs in
float16 is below 0.01 in the samples.
"""

STATES = ("h0", "c0")

SEGMENT = 512
"""Longer sequences are cut; each part then begins with an empty state."""


@dataclass(frozen=True, eq=False)
class Chunk:
    """Sequences of one layer: (batch, time, input), lengths (batch,) if they differ, first states
    (layers * directions, batch, size) unless they are zero.
    """

    inputs: Tensor
    lengths: Tensor | None = None
    states: tuple[Tensor, ...] = ()

    def state(self, stack: RecurrentStack) -> State:
        """The first state as the stack's layer takes it, in float32; None if it is zero."""
        members = tuple(member.float() for member in self.states)
        if not members:
            return None
        return members if stack.kind == "lstm" else members[0]

    def take(self, which: Tensor) -> Chunk:
        """Some of the sequences."""
        lengths = None if self.lengths is None else self.lengths[which]
        return Chunk(self.inputs[which], lengths, tuple(s[:, which] for s in self.states))


@dataclass(frozen=True)
class Part:
    """Some steps of the sequences of a chunk; `first` numbers its first one among all parts."""

    prefix: str
    chunk: int
    steps: slice
    sequences: int
    first: int

    @property
    def length(self) -> int:
        """Time steps of each of its sequences."""
        return int(self.steps.stop - self.steps.start)

    @property
    def positions(self) -> int:
        """Time steps of all its sequences."""
        return self.sequences * self.length


@dataclass(frozen=True, eq=False)
class Recorded:
    """A file of recorded inputs, of which each chunk is read when it is asked for.

    Attributes:
        path: of the file.
        stacks: the recurrent layers that it has inputs of, by prefix.
        names: the names of the tensors with inputs of each, one for each chunk.
        linears: the same of linear layers, by path.
        steps: how many steps of a loop around a cell each of its chunks holds, by prefix.
        predicts: what the model's outputs are, if the recording says so.
    """

    path: Path
    stacks: Mapping[str, RecurrentStack]
    names: Mapping[str, tuple[str, ...]]
    linears: Mapping[str, tuple[str, ...]]
    steps: Mapping[str, Sequence[int]]
    predicts: OutputKind | None
    contents: Contents

    def shape(self, prefix: str, number: int) -> tuple[int, int]:
        """Sequences and time steps of a chunk, without reading it."""
        batch, time, _ = self.contents.tensors[self.names[prefix][number]].shape
        return batch, time

    def has_lengths(self, prefix: str, number: int) -> bool:
        """Whether the sequences of a chunk differ in length."""
        return self.names[prefix][number].removesuffix(".inputs") + ".lengths" in self

    def parts(self) -> Iterator[Part]:
        """All chunks in order, long ones cut in time; sequences of unlike lengths stay whole."""
        first = 0
        for prefix, names in self.names.items():
            for number in range(len(names)):
                sequences, time = self.shape(prefix, number)
                length = time if self.has_lengths(prefix, number) else SEGMENT
                for start in range(0, time, length):
                    steps = slice(start, min(start + length, time))
                    yield Part(prefix, number, steps, sequences, first)
                    first += sequences

    def shape_of(self, part: Part) -> tuple[str, int, bool, bool]:
        """Layer, steps, whether there are lengths and states: only like ones run together."""
        place = self._place(part)
        has_states = part.steps.start == 0 and any(f"{place}.{s}" in self for s in STATES)
        return part.prefix, part.length, f"{place}.lengths" in self, has_states

    def gather(self, sequences: Sequence[tuple[Part, int]]) -> Chunk:
        """Read single sequences, of parts of one shape, as one chunk.

        A state is known at the beginning of a chunk only.
        """
        _, _, has_lengths, has_states = self.shape_of(sequences[0][0])
        tensors, inputs, lengths = self.contents.tensors, [], []
        states: dict[str, list[Tensor]] = {}
        for part, k in sequences:
            place, one = self._place(part), slice(k, k + 1)
            inputs.append(tensors[self.names[part.prefix][part.chunk]].part((k,), part.steps))
            if has_lengths:
                lengths.append(tensors[f"{place}.lengths"].part((), one))
            for name in STATES if has_states else ():
                if (entry := tensors.get(f"{place}.{name}")) is not None:
                    layers = [entry.part((layer,), one) for layer in range(entry.shape[0])]
                    states.setdefault(name, []).append(torch.stack(layers))
        return Chunk(
            torch.stack([one.float() for one in inputs]),
            torch.cat(lengths) if lengths else None,
            tuple(torch.cat([one.float() for one in some], 1) for some in states.values()),
        )

    def _place(self, part: Part) -> str:
        return self.names[part.prefix][part.chunk].removesuffix(".inputs")

    def chunk(self, prefix: str, number: int) -> Chunk:
        """Read one chunk.

        Raises:
            RecipeError: it holds NaN or infinity, lengths beyond its time axis, or states that
                do not fit the layer.
        """
        name = self.names[prefix][number]
        inputs = self.read(name)
        place = name.removesuffix(".inputs")
        lengths = self.read(f"{place}.lengths") if f"{place}.lengths" in self else None
        states = tuple(self.read(f"{place}.{s}") for s in STATES if f"{place}.{s}" in self)
        if lengths is not None and not (
            lengths.shape == inputs.shape[:1]
            and not lengths.is_floating_point()
            and bool((lengths >= 1).all())
            and bool((lengths <= inputs.shape[1]).all())
        ):
            longest = int(lengths.max()) if lengths.numel() else 0
            raise RecipeError(
                f"{self.path}: {place}: {len(lengths)} lengths, the longest {longest}, for "
                f"{inputs.shape[0]} sequences of {inputs.shape[1]} steps. Record the inputs again."
            )
        self._check_states(place, self.stacks[prefix], states, len(inputs))
        return Chunk(inputs, lengths, states)

    def _check_states(
        self, place: str, stack: RecurrentStack, states: Sequence[Tensor], sequences: int
    ) -> None:
        count = stack.num_layers * stack.directions
        sizes = [stack.output_size // stack.directions, stack.hidden_size]
        wanted = [(count, sequences, size) for size in sizes[: 2 if stack.kind == "lstm" else 1]]
        found = [tuple(member.shape) for member in states]
        if found and found != wanted:
            shown, fitting = (", ".join(map(shape_text, shapes)) for shapes in (found, wanted))
            raise RecipeError(
                f"{self.path}: {place}: expected first states of {fitting}, got {shown}. "
                "Record the inputs again."
            )

    def __contains__(self, name: str) -> bool:
        return name in self.contents.tensors

    def loops(self, prefix: str, number: int) -> Tensor:  # (steps, sequences)
        """The numbers of a chunk's sequences: of a cell, the steps of each loop below each other;
        other layers have one step.
        """
        sequences, _ = self.shape(prefix, number)
        steps = self.steps[prefix][number] if prefix in self.steps else 1
        return torch.arange(sequences).reshape(steps, -1)

    def read(self, name: str) -> Tensor:
        """Read one tensor.

        Raises:
            RecipeError: it holds NaN or infinity.
        """
        values = self.contents.tensors[name].read()
        if values.is_floating_point() and (bad := int((~values.isfinite()).sum())):
            raise RecipeError(
                f"{self.path}: {name}: {bad:,} of {values.numel():,} values are NaN or infinite. "
                "Record the inputs again, without the sequences that hold them."
            )
        return values


def read_recording(path: str | Path, model: Model) -> Recorded:
    """Open a file of recorded inputs, and check that it belongs to a model.

    Raises:
        InputError: there is no such file, or safetensors cannot read it.
        RecipeError: a tensor matches no layer or has another shape, or the layer's outputs are not
            those that were recorded.
    """
    path = Path(path)
    check_input(path, "a safetensors file")
    try:
        contents = open_safetensors(path)
    except CheckpointError as error:
        fact = str(error).rstrip(".")
        raise InputError(f"{path}: cannot be read as safetensors ({fact}).") from error
    except OSError as error:
        raise unreadable(path, error) from error
    known = {s.prefix.removesuffix("."): s for s in model.stacks if not s.raw}
    facts = _read_facts(path, contents)
    found: dict[str, tuple[str, ...]]
    if facts is None:
        found = {name: (name,) for name in contents.tensors}
        if len(found) == len(known) == 1:
            found = {next(iter(known)): next(iter(found.values()))}
        facts = _Facts({}, {}, None)
    else:
        found = {
            name: tuple(f"{prefix_of(name)}{k}.inputs" for k in range(count))
            for name, count in facts.chunks.items()
        }
    linears = {}
    for name in set(found) - set(known):
        width = _linear_width(model, name)
        if width is not None and f"{prefix_of(name)}check" not in contents.tensors:
            linears[name] = found.pop(name)
            for tensor in linears[name]:
                _check_shape(path, tensor, contents, width)
    stacks = {}
    for name, tensors in found.items():
        if name not in known:
            layers = ", ".join(map(repr, known)) or "none"
            raise RecipeError(
                f"{path}: {name} is not a recurrent layer of the model; those are {layers}. "
                "Name each tensor after the layer whose inputs it holds."
            )
        stacks[known[name].prefix] = known[name]
        for tensor in tensors:
            _check_shape(path, tensor, contents, known[name].input_size)
    names = {known[name].prefix: tensors for name, tensors in found.items()}
    steps = {known[n].prefix: facts.steps[n] for n in found if n in facts.steps and known[n].cell}
    recorded = Recorded(path, stacks, names, linears, steps, facts.predicts, contents)
    _check_steps(recorded)
    for prefix, stack in stacks.items():
        for k in range(len(names[prefix])):
            recorded.chunk(prefix, k)  # a broken one is refused before the work
        _check_outputs(recorded, stack, model)
    return recorded


@dataclass(frozen=True)
class _Facts:
    """How many chunks each layer has, the steps in each, and what is predicted."""

    chunks: Mapping[str, int]
    steps: Mapping[str, Sequence[int]]
    predicts: OutputKind | None


def _linear_width(model: Model, path: str) -> int | None:
    """How many inputs the linear layer at a path has; None if there is none."""
    shapes = {name: shape for names, shape in model.tied_shapes.items() for name in names}
    shape = shapes.get(f"{prefix_of(path)}weight", ())
    return shape[1] if len(shape) == 2 else None


def _check_steps(recorded: Recorded) -> None:
    """Check that the sequences of each chunk are as many steps of loops."""
    for prefix, steps in recorded.steps.items():
        for k, count in enumerate(steps):
            if recorded.shape(prefix, k)[0] % count:
                raise InputError(
                    f"{recorded.path}: {recorded.names[prefix][k]} has "
                    f"{recorded.shape(prefix, k)[0]} sequences, which are not {count} steps of "
                    "loops, as its metadata say. Record it again."
                )


def _read_facts(path: Path, contents: Contents) -> _Facts | None:
    """What the metadata say; None for a file made by hand."""
    if RECORD not in contents.metadata:
        return None
    try:
        document = read_json(contents.metadata[RECORD].encode())
        version, predicts = document["version"], document.get("predicts")
        chunks = {str(name): int(count) for name, count in document["chunks"].items()}
        if predicts is not None and predicts not in OUTPUT_KINDS:
            raise ValueError(f"predicts {predicts!r}")
        steps = {str(name): list(map(int, s)) for name, s in document.get("steps", {}).items()}
        for name, counts in steps.items():
            if len(counts) != chunks.get(name) or min(counts, default=1) < 1:
                raise ValueError(f"steps {counts} of {name}")
        if any(not 0 <= count <= len(contents.tensors) for count in chunks.values()):
            raise ValueError("more chunks than tensors")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: its metadata is damaged ({error}). Record it again.") from error
    if version != VERSION:
        raise InputError(
            f"{path}: is a recording of version {version}, but this program reads {VERSION}. "
            "Record it again."
        )
    return _Facts(chunks, steps, predicts)


def _check_shape(path: Path, name: str, contents: Contents, size: int) -> None:
    entry = contents.tensors.get(name)
    if entry is None:
        raise RecipeError(f"{path}: has no {name}, though its metadata counts it. Record it again.")
    if len(entry.shape) != 3 or entry.shape[2] != size or not entry.dtype.is_floating_point:
        raise RecipeError(
            f"{path}: {name}: expected floats of shape (batch, time, {size}), got "
            f"{entry.shape} of {entry.dtype}."
        )
    if 0 in entry.shape:
        raise RecipeError(
            f"{path}: {name} holds no inputs: its shape is {entry.shape}. "
            "Record at least one sequence of at least one step."
        )


def _check_outputs(recorded: Recorded, stack: RecurrentStack, model: Model) -> None:
    """Compare the layer's outputs for its first sequence with those that were recorded."""
    name = f"{stack.prefix}check"
    if name not in recorded:
        return
    wanted = recorded.contents.tensors[name].read().float()
    chunk = recorded.chunk(stack.prefix, 0).take(torch.tensor([0]))
    steps = chunk.inputs.shape[1] if chunk.lengths is None else int(chunk.lengths[0])
    layer = dense_layer(stack, model.tensor)
    with torch.no_grad():
        found = layer(chunk.inputs[:, :steps].float(), chunk.state(stack))[0][0]
    if found.shape == wanted.shape:
        gap = float((found - wanted).norm() / wanted.norm().clamp_min(1e-12))
        if gap <= STRANGE:
            return
        fact = f"its outputs differ by {gap:.2g} (relative norm) from those recorded"
    else:
        fact = f"its outputs are {tuple(found.shape)}, those recorded {tuple(wanted.shape)}"
    raise RecipeError(
        f"{recorded.path}: was recorded from another model: for the first sequence of "
        f"{stack.prefix.removesuffix('.') or 'the layer'} {fact}. Record this model's inputs."
    )
