"""A tree of pickled values enters; its state dicts, its optimizers, and its tensors by place leave.

A whole pickled module counts as the state dict it would give: its parameters and buffers, then its
submodules'. So does a TorchScript module.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from typing import Any

from ttcompress.checkpoint.pickle.arrays import PickledArray
from ttcompress.checkpoint.pickle.builders import Unreadable
from ttcompress.checkpoint.pickle.objects import PickledObject
from ttcompress.checkpoint.stored import StoredTensor
from ttcompress.errors import CheckpointError

Place = tuple[str, ...]
"""The keys from the root to a value, as text."""

Leaf = StoredTensor | Unreadable

MAX_DEPTH = 100
MAX_STEPS = 10_000_000
"""Values looked at in all walks over one file; shared lists make a small pickle look endless."""

_BRANCHES = (dict, list, tuple, PickledObject, StoredTensor, PickledArray, Unreadable)
"""What a tensor is or can be below of; a vocabulary's words need no look."""

_OPTIMIZER_KEY = re.compile(r"(.*_)?optim(izer)?s?(_.*)?", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class StateDict:
    """A dictionary or module that directly holds at least one weight under a name."""

    place: Place
    value: Any
    weights: int
    bytes: int

    @property
    def key(self) -> str:
        """What `--key` calls it; the root is "."."""
        return ".".join(self.place) or "."


@dataclass(frozen=True)
class Survey:
    """What a tree holds: where the weights can be, and the optimizer state."""

    state_dicts: tuple[StateDict, ...]
    optimizers: tuple[tuple[Place, Any], ...]


def as_leaf(value: Any) -> Leaf | None:
    """The tensor that a value is, if it is one; numpy arrays of numbers are."""
    if isinstance(value, PickledArray):
        return value.tensor
    return value if isinstance(value, StoredTensor | Unreadable) else None


def is_module(value: Any) -> bool:
    """Whether a value is a pickled `torch.nn.Module` or a TorchScript module."""
    if not isinstance(value, PickledObject):
        return False
    scripted = value.cls.module.partition(".")[0] == "__torch__"
    return scripted or {"_parameters", "_modules"} <= value.attributes.keys()


def children(value: Any) -> Iterator[tuple[Any, Any]]:
    """The values right below one, each with its key, attribute name or index.

    Below a module are its parameters, buffers and submodules, and nothing else.
    """
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, list | tuple):
        yield from enumerate(value)
    elif isinstance(value, PickledObject) and is_module(value):
        yield from _module_children(value)
    elif isinstance(value, PickledObject):
        yield from value.attributes.items()
        yield from value.pairs.items()
        yield from enumerate(value.items)
        yield from enumerate(value.args)


def _module_children(module: PickledObject) -> Iterator[tuple[Any, Any]]:
    attributes = module.attributes
    if "_parameters" not in attributes:
        yield from ((k, v) for k, v in attributes.items() if is_module(v) or as_leaf(v) is not None)
        return
    for part in ("_parameters", "_buffers", "_modules"):
        held = attributes.get(part)
        if isinstance(held, dict):
            yield from ((key, child) for key, child in held.items() if child is not None)


@dataclass
class Steps:
    """How many values were looked at, over all walks that share it."""

    taken: int = 0


@dataclass
class _Walk:
    """One walk over a tree, held to a number of steps, a depth, and no cycles."""

    steps: Steps
    skipped: Set[int] = frozenset()
    open: set[int] = field(default_factory=set)

    def enter(self, value: Any, place: Place) -> Iterator[tuple[Any, Any]]:
        if id(value) in self.open:
            return
        self.open.add(id(value))
        for key, child in children(value):
            self.steps.taken += 1
            if self.steps.taken > MAX_STEPS or len(place) > MAX_DEPTH:
                raise CheckpointError(
                    f"its content is nested over {MAX_DEPTH} deep or has over {MAX_STEPS:,} parts; "
                    "no checkpoint does. Save the state dict alone."
                )
            if isinstance(child, _BRANCHES) and id(child) not in self.skipped:
                yield key, child
        self.open.discard(id(value))

    def tensors(self, value: Any, place: Place) -> Iterator[tuple[Place, Leaf]]:
        leaf = as_leaf(value)
        if leaf is not None:
            yield place, leaf
            return
        for key, child in self.enter(value, place):
            yield from self.tensors(child, (*place, str(key)))


def tensors_below(
    value: Any, steps: Steps, skipped: Set[int] = frozenset()
) -> Iterator[tuple[Place, Leaf]]:
    """Every tensor in a value with its place, in the file's order; `skipped` holds ids to pass by.

    Raises:
        CheckpointError: too deep, or endless.
    """
    return _Walk(steps, skipped).tensors(value, ())


def survey(root: Any, steps: Steps) -> Survey:
    """Find every state dict and all optimizer state. A value that stands in two places counts once.

    Raises:
        CheckpointError: too deep, or endless.
    """
    walk, seen = _Walk(steps), set[int]()
    state_dicts: list[StateDict] = []
    optimizers: list[tuple[Place, Any]] = []

    def visit(value: Any, place: Place) -> None:
        if id(value) in seen:
            return
        seen.add(id(value))
        if place and is_optimizer(place[-1], value, steps):
            optimizers.append((place, value))
            return
        if found := _as_state_dict(value, place, steps):
            state_dicts.append(found)
        if not is_module(value):
            for key, child in walk.enter(value, place):
                visit(child, (*place, str(key)))

    visit(root, ())
    return Survey(tuple(state_dicts), tuple(optimizers))


def _as_state_dict(value: Any, place: Place, steps: Steps) -> StateDict | None:
    if is_module(value):
        leaves = [leaf for _, leaf in tensors_below(value, steps)]
    else:
        leaves = [
            leaf
            for key, child in children(value)
            if isinstance(key, str) and (leaf := as_leaf(child)) is not None
        ]
    stored = [leaf for leaf in leaves if isinstance(leaf, StoredTensor)]
    weights = sum(leaf.is_weight for leaf in stored)
    if not weights:
        return None
    return StateDict(place, value, weights, sum(leaf.bytes for leaf in stored))


def is_optimizer(key: str, value: Any, steps: Steps) -> bool:
    """Whether a value is an optimizer's state: by its own keys, or by its name and its tensors."""
    if _is_optimizer_state(value):
        return True
    parts = [child for _, child in children(value)] if isinstance(value, dict | list) else []
    if parts and all(_is_optimizer_state(part) for part in parts):
        return True
    return _OPTIMIZER_KEY.fullmatch(key) is not None and any(
        True for _ in tensors_below(value, steps)
    )


def _is_optimizer_state(value: Any) -> bool:
    held = value.attributes if isinstance(value, PickledObject) else value
    return isinstance(held, dict) and {"state", "param_groups"} <= held.keys()
