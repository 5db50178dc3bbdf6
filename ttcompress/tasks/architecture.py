"""Recognises the common architecture in a model: embedding, recurrent layers, linear layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise

from ttcompress.errors import RecipeError
from ttcompress.layers.recurrent_model import Chain
from ttcompress.layers.structure import Shape, Structure
from ttcompress.model.weights import RecurrentStack
from ttcompress.system.text import shape_text

MAX_LISTED = 8


def read_chain(structure: Structure, task: str) -> Chain:
    """Recognise the chain by shapes, and by roles where shapes leave it open.

    Every tensor of the model must have a place in the chain: with a layer overlooked, the metrics
    would be those of another model.

    Raises:
        RecipeError: the model is not such a chain; the message says what was found.
    """
    if structure.foreign:
        layers = "; ".join(structure.foreign)
        raise _unfit(structure, task, f"torch.nn has no such recurrent layer as {layers}")
    if problem := _problem_of(structure.stacks):
        raise _unfit(structure, task, problem)
    shapes, recurrent = structure.shapes, structure.recurrent
    rest = {name: shape for name, shape in shapes.items() if name not in recurrent}
    few = len(rest) <= 3  # more cannot be used, and the pairs would be very many
    for embedding, linear in _candidates(rest, structure) if few else ():
        weight, bias = f"{linear}.weight", f"{linear}.bias"
        if set(rest) <= {embedding, weight, bias}:
            return Chain(
                embedding=embedding.removesuffix(".weight") if embedding else None,
                symbols=shapes[embedding][0] if embedding else structure.stacks[0].input_size,
                stacks=structure.stacks,
                linear=linear,
                classes=shapes[weight][0],
                bias=bias in shapes,
                tied=any({embedding, weight} <= set(names) for names in structure.ties),
            )
    raise _unfit(structure, task, "its other tensors are not an embedding and a linear layer")


def read_classifying_chain(structure: Structure, task: str) -> Chain:
    """Recognise a chain whose outputs are the logits of classes.

    Raises:
        RecipeError: the model is not a chain, or has a single output.
    """
    chain = read_chain(structure, task)
    if chain.classes < 2:
        raise RecipeError(
            f"task {task}: {chain.linear} gives 1 output, but at least 2 classes are needed. For a "
            'single logit or a single value write your own task, with `predicts` of "binary" or '
            '"values": --task file.py:Name.'
        )
    return chain


def _problem_of(stacks: tuple[RecurrentStack, ...]) -> str:
    """Why the recurrent layers cannot be run one after another; empty if they can."""
    if not stacks:
        return "it has no recurrent layer"
    for stack in stacks:
        if stack.cell:
            return f"{stack.prefix}* is a cell, whose loop through time is not in the checkpoint"
        if stack.raw:
            return f"{stack.prefix}* has the weights of weight-drop (`_raw`)"
        if not stack.prefix:
            return "the recurrent layer is not part of a larger model"
    for one, after in pairwise(stacks):
        if after.input_size != one.output_size:
            return (
                f"{after.prefix}* takes {after.input_size} values, but {one.prefix}* before it "
                f"gives {one.output_size}"
            )
    return ""


def _candidates(
    rest: Mapping[str, Shape], structure: Structure
) -> Iterator[tuple[str | None, str]]:
    """Pairs of an embedding's name and a linear layer's path that fit by shape, likely ones first.

    Where an embedding is as wide as the recurrent layers' output, both orders fit: then the names
    decide, and after them the file's order.
    """
    takes, gives = structure.stacks[0].input_size, structure.stacks[-1].output_size
    matrices = {n: s for n, s in rest.items() if len(s) == 2 and n.endswith(".weight")}
    inputs: list[str | None] = [n for n in matrices if matrices[n][1] == takes]
    inputs.sort(key=lambda name: name is not None and structure.roles[name] != "embedding")
    for embedding in [*inputs, None]:
        for name, shape in matrices.items():
            path = name.removesuffix(".weight")
            bias = rest.get(f"{path}.bias", (shape[0],))
            if name != embedding and shape[1] == gives and bias == (shape[0],):
                yield embedding, path


def _unfit(structure: Structure, task: str, why: str) -> RecipeError:
    layers = [
        f"{s.prefix}* ({s.kind}, {s.input_size} -> {s.output_size}, {s.num_layers} "
        f"layer{'s' if s.num_layers > 1 else ''}{', bidirectional' if s.bidirectional else ''})"
        for s in structure.stacks
    ]
    roles, recurrent = structure.roles, structure.recurrent
    others = [
        f"{name} ({shape_text(shape)}{f', {roles[name]}' if name in roles else ''})"
        for name, shape in structure.shapes.items()
        if name not in recurrent
    ]
    return RecipeError(
        f"task {task}: does not fit the model: {why}. It needs an embedding (or inputs that are "
        "one-hot or values), recurrent layers in sequence, and one linear layer. "
        f"Recurrent layers found: {_list(layers)}. Other tensors found: {_list(others)}. "
        "Write your own task: --task file.py:Name."
    )


def _list(items: list[str]) -> str:
    more = f" and {len(items) - MAX_LISTED} more" if len(items) > MAX_LISTED else ""
    return (", ".join(items[:MAX_LISTED]) or "nothing") + more
