"""Checks that the parts of a model read from a file agree with each other.

pydantic has checked each part by itself. After `check_coherent`, every name in a loaded
model exists, and its layers have the sizes of their tensors.
"""

from __future__ import annotations

from collections.abc import Iterator

from ttcompress.artifact.model import CompressedModel
from ttcompress.checkpoint.names import names_inside
from ttcompress.model.geometry import stored_name, tensor_shapes
from ttcompress.model.weights import GATES, RecurrentStack, Weight
from ttcompress.trains.stored import StoredWeight

Shapes = dict[str, tuple[int, ...]]
"""The dense shape of every tensor, by each of its names."""


def check_coherent(model: CompressedModel) -> None:
    """Check that names, shapes, layers and report agree.

    Raises:
        ValueError: two of them contradict each other.
    """
    shapes = _shapes(model)
    if missing := model.source_paths.keys() - shapes.keys():
        raise ValueError(f"source_paths: no tensor is named {min(missing)!r}")
    inside = {name: shapes[name] for name in names_inside(model.source_paths)}
    for stored in model.weights:
        _check_weight(stored.weight, inside)
    for stack in model.stacks:
        _check_stack(stack, inside)


def _shapes(model: CompressedModel) -> Shapes:
    firsts = {stored.weight.name for stored in model.weights} | model.kept.keys()
    if strange := model.ties.keys() - firsts:
        raise ValueError(f"ties: no tensor is named {min(strange)!r}")
    shapes: Shapes = {}
    for names, shape in _tensors(model):
        for name in names:
            if name in shapes:
                raise ValueError(f"two tensors are named {name!r}")
            shapes[name] = shape
    return shapes


def _tensors(model: CompressedModel) -> Iterator[tuple[tuple[str, ...], tuple[int, ...]]]:
    """The names and the shape of each."""
    for stored in model.weights:
        yield _names(model, stored), stored.weight.shape
    for name, tensor in model.kept.items():
        names = model.ties.get(name, (name,))
        if names[:1] != (name,):
            raise ValueError(f"ties: {name!r} is not the first of its names")
        yield names, tuple(tensor.shape)


def _names(model: CompressedModel, stored: StoredWeight) -> tuple[str, ...]:
    weight = stored.weight
    names = model.ties.get(weight.name, (weight.name,))
    if names != weight.names or names[:1] != (weight.name,):
        raise ValueError(f"{weight.name}: its names are {weight.names}, but ties has {names}")
    return names


def _check_weight(weight: Weight, inside: Shapes) -> None:
    rows, columns = weight.shape
    if weight.name not in inside:
        raise ValueError(f"source_paths: {weight.name} is not in it")
    if rows < 1 or columns < 1:
        raise ValueError(f"{weight.name}: a weight cannot be {rows} x {columns}")
    if weight.gates not in GATES.values() or rows % weight.gates:
        raise ValueError(f"{weight.name}: {rows} rows do not divide into {weight.gates} gates")


def _check_stack(stack: RecurrentStack, inside: Shapes) -> None:
    """Check sizes first, because the names and shapes of tensors follow from them."""
    sizes = (stack.input_size, stack.hidden_size, stack.num_layers)
    if min(sizes) < 1 or stack.proj_size < 0 or stack.num_layers > len(inside):
        raise ValueError(
            f"{stack.prefix}*: a layer cannot have the sizes {(*sizes, stack.proj_size)}"
        )
    for own, shape in tensor_shapes(stack).items():
        name = stored_name(stack, own)
        if inside.get(name) != shape:
            raise ValueError(f"{name}: is {inside.get(name)}, but its layer needs {shape}")
