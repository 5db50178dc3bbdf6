"""A structure enters; the chain embedding -> recurrent layers -> linear in it leaves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

from ttcompress.errors import RecipeError
from ttcompress.model.geometry import tensor_shapes
from ttcompress.model.weights import RecurrentStack
from ttcompress.tasks.structure import Shape, Structure

MAX_LISTED = 8


@dataclass(frozen=True)
class Chain:
    """What a common recurrent model consists of, as paths of modules and their sizes.

    Attributes:
        embedding: the embedding's path; None where inputs are one-hot.
        symbols: how many different inputs there are.
        stacks: the recurrent layers, each of which takes what the one before gives.
        linear: the path of the last layer.
        classes: how many outputs the last layer has.
        bias: whether the last layer has a bias.
        tied: whether the last layer's weight is the embedding's.
    """

    embedding: str | None
    symbols: int
    stacks: tuple[RecurrentStack, ...]
    linear: str
    classes: int
    bias: bool
    tied: bool


def read_chain(structure: Structure, task: str) -> Chain:
    """Recognise the chain by shapes, and by roles where shapes leave it open.

    Every tensor of the model must have its place in the chain: a layer that was overlooked would
    give metrics of another model.

    Raises:
        RecipeError: the model is no such chain; the message says what was found.
    """
    stacks, shapes = structure.stacks, structure.shapes
    problem = _problem_of(stacks)
    if problem:
        raise _unfit(structure, task, problem)
    recurrent = {stack.prefix + name for stack in stacks for name in tensor_shapes(stack)}
    rest = {name: shape for name, shape in shapes.items() if name not in recurrent}
    few = len(rest) <= 3  # no more can be used, and many would make very many pairs
    for embedding, linear in _candidates(rest, structure) if few else ():
        used = {embedding, f"{linear}.weight", f"{linear}.bias"}
        if set(rest) <= used:
            return _chain(structure, embedding, linear)
    raise _unfit(structure, task, "the tensors around the recurrent layers are not these two")


def output_size(stack: RecurrentStack) -> int:
    """Values in each step's output."""
    return (stack.proj_size or stack.hidden_size) * (1 + stack.bidirectional)


def _problem_of(stacks: tuple[RecurrentStack, ...]) -> str:
    """Why the recurrent layers cannot be run one after another; empty if they can."""
    if not stacks:
        return "it has no recurrent layer"
    for stack in stacks:
        if stack.cell:
            return f"{stack.prefix}* is a cell, and how its code steps through time is not known"
        if stack.raw:
            return f"{stack.prefix}* has the weights of weight-drop (`_raw`)"
        if not stack.prefix:
            return "the recurrent layer is not part of a larger model"
    for one, after in pairwise(stacks):
        if after.input_size != output_size(one):
            return (
                f"{after.prefix}* takes {after.input_size} values and {one.prefix}* before it "
                f"gives {output_size(one)}"
            )
    return ""


def _candidates(
    rest: Mapping[str, Shape], structure: Structure
) -> Iterator[tuple[str | None, str]]:
    """Pairs of an embedding's name and a linear layer's path that fit by shape, likely ones first.

    Both fit in either order where an embedding is as wide as the recurrent layers' output: then
    the names decide, and after them the file's order.
    """
    takes, gives = structure.stacks[0].input_size, output_size(structure.stacks[-1])
    matrices = {n: s for n, s in rest.items() if len(s) == 2 and n.endswith(".weight")}
    inputs: list[str | None] = [n for n in matrices if matrices[n][1] == takes]
    inputs.sort(key=lambda name: name is not None and structure.roles[name] != "embedding")
    for embedding in [*inputs, None]:
        for name, shape in matrices.items():
            path = name.removesuffix(".weight")
            bias = rest.get(f"{path}.bias", (shape[0],))
            if name != embedding and shape[1] == gives and bias == (shape[0],):
                yield embedding, path


def _chain(structure: Structure, embedding: str | None, linear: str) -> Chain:
    shapes, weight = structure.shapes, f"{linear}.weight"
    return Chain(
        embedding=embedding.removesuffix(".weight") if embedding else None,
        symbols=shapes[embedding][0] if embedding else structure.stacks[0].input_size,
        stacks=structure.stacks,
        linear=linear,
        classes=shapes[weight][0],
        bias=f"{linear}.bias" in shapes,
        tied=any({embedding, weight} <= set(names) for names in structure.ties),
    )


def _unfit(structure: Structure, task: str, why: str) -> RecipeError:
    layers = [
        f"{s.prefix}* ({s.kind}, {s.input_size} -> {output_size(s)}, {s.num_layers} "
        f"layer{'s' if s.num_layers > 1 else ''}{', bidirectional' if s.bidirectional else ''})"
        for s in structure.stacks
    ]
    recurrent = {s.prefix + name for s in structure.stacks for name in tensor_shapes(s)}
    others = [
        f"{name} ({' x '.join(map(str, shape))}{_role(structure, name)})"
        for name, shape in structure.shapes.items()
        if name not in recurrent
    ]
    return RecipeError(
        f"task {task}: the model does not fit: {why}. It must be an embedding (or one-hot inputs), "
        "recurrent layers one after another, and one linear layer. "
        f"Found recurrent: {_listed(layers)}. Found besides: {_listed(others)}. "
        "Write a task of your own: --task file.py:Name."
    )


def _role(structure: Structure, name: str) -> str:
    return f", {structure.roles[name]}" if name in structure.roles else ""


def _listed(items: list[str]) -> str:
    more = f" and {len(items) - MAX_LISTED} more" if len(items) > MAX_LISTED else ""
    return (", ".join(items[:MAX_LISTED]) or "nothing") + more
