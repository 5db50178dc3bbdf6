"""Walks the tree of values that a container holds, within bounds that no hostile file can exceed.

One `Tree` is made for each file. It finds the state dicts, the optimizers, and the tensors below
any value. A whole pickled module counts as the state dict it would give: its parameters and
buffers, then its submodules'. So does a TorchScript module.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Self

from ttcompress.checkpoint.pickle.arrays import PickledArray
from ttcompress.checkpoint.pickle.builders import QUANTISED, UnreadableTensor
from ttcompress.checkpoint.pickle.objects import PickledObject, ScriptedModule
from ttcompress.checkpoint.tensors import StoredTensor
from ttcompress.errors import CheckpointError

Place = tuple[str, ...]
"""The keys from the root to a value, as text."""

Leaf = StoredTensor | UnreadableTensor

MAX_DEPTH = 100
MAX_STEPS = 10_000_000
"""Values visited in all walks over one file; shared lists make a small pickle look endless."""

_WALKED = (dict, list, tuple, PickledObject, StoredTensor, PickledArray, UnreadableTensor)
"""What is a tensor or may contain one; the words of a vocabulary need no visit."""

_OPTIMIZER_KEY = re.compile(r"(.*_)?optim(izer)?s?(_.*)?", re.IGNORECASE | re.DOTALL)

_PACKED_CLASS = re.compile(r"__torch__\.torch\.classes\.(quantized|rnn|sparse|xnnpack)\.")


@dataclass(frozen=True)
class Branch:
    """A value with tensors in it: how many are weights, and the bytes of all."""

    place: Place
    value: Any
    weights: int
    bytes: int

    @classmethod
    def of(cls, place: Place, value: Any, leaves: Iterable[Leaf]) -> Self:
        """The branch that holds these tensors; those that cannot be read do not count."""
        stored = [leaf for leaf in leaves if isinstance(leaf, StoredTensor)]
        weights = sum(leaf.is_weight for leaf in stored)
        return cls(place, value, weights, sum(leaf.bytes for leaf in stored))

    @property
    def key(self) -> str:
        """What `--key` calls it; the root is "."."""
        return ".".join(self.place) or "."

    def is_above(self, other: Branch) -> bool:
        """Whether the other one is inside this one, or in the same place."""
        return other.place[: len(self.place)] == self.place


@dataclass(frozen=True)
class Survey:
    """The state dicts and the optimizer state found in a tree."""

    state_dicts: tuple[Branch, ...]
    optimizers: tuple[Branch, ...]


class Tree:
    """The values of one file.

    All walks share one budget of steps, none goes too deep, and none follows a cycle: each raises
    CheckpointError where the file asks for more than any checkpoint does. `left_out` holds the ids
    of values that walks skip.
    """

    def __init__(self, root: Any) -> None:
        self.root = root
        self.left_out: set[int] = set()
        self._steps = 0

    def tensors(self, value: Any, besides: Iterable[Any] = ()) -> Iterator[tuple[Place, Leaf]]:
        """Every tensor in a value with its place below it, in the file's order.

        Args:
            besides: values to skip, in addition to `left_out`; `value` itself may be one.
        """
        inside: set[int] = set()
        skipped = {id(one) for one in besides}

        def visit(value: Any, place: Place) -> Iterator[tuple[Place, Leaf]]:
            leaf = as_leaf(value)
            if leaf is not None:
                yield place, leaf
                return
            for key, child in self._enter(value, place, inside):
                if id(child) not in skipped:
                    yield from visit(child, (*place, str(key)))

        return iter(()) if id(value) in skipped else visit(value, ())

    def modules(self, value: Any) -> Iterator[tuple[Place, PickledObject]]:
        """Every module in a value with its place below it, the value itself included."""
        inside: set[int] = set()

        def visit(value: Any, place: Place) -> Iterator[tuple[Place, PickledObject]]:
            if is_module(value):
                yield place, value
                for key, child in self._enter(value, place, inside):
                    yield from visit(child, (*place, str(key)))

        return visit(value, ())

    def path(self, place: Place) -> list[Any]:
        """The values from the root to a place, both included; None where there is none."""
        values = [self.root]
        for step in place:
            found = (child for key, child in children(values[-1]) if str(key) == step)
            values.append(next(found, None))
        return values

    def values(self) -> Iterator[Any]:
        """Every dictionary, object and module, each once; no submodule of a module by itself."""
        seen: set[int] = set()
        inside: set[int] = set()

        def visit(value: Any, place: Place) -> Iterator[Any]:
            if id(value) in seen:
                return
            seen.add(id(value))
            if isinstance(value, dict | PickledObject):
                yield value
            if not is_module(value):
                for key, child in self._enter(value, place, inside):
                    yield from visit(child, (*place, str(key)))

        return visit(self.root, ())

    def survey(self) -> Survey:
        """Find every state dict and all optimizer state; a value in two places counts once."""
        seen: set[int] = set()
        inside: set[int] = set()
        state_dicts: list[Branch] = []
        optimizers: list[Branch] = []

        def visit(value: Any, place: Place) -> None:
            if id(value) in seen:
                return
            seen.add(id(value))
            if self._is_optimizer(place[-1] if place else "", value):
                optimizers.append(
                    Branch.of(place, value, {leaf for _, leaf in self.tensors(value)})
                )
                return
            if is_module(value):
                leaves = [leaf for _, leaf in self.tensors(value)]
            else:
                named = (as_leaf(child) for key, child in children(value) if isinstance(key, str))
                leaves = [leaf for leaf in named if leaf is not None]
            branch = Branch.of(place, value, leaves)
            if branch.weights:
                state_dicts.append(branch)
            if not is_module(value):
                for key, child in self._enter(value, place, inside):
                    visit(child, (*place, str(key)))

        visit(self.root, ())
        return Survey(tuple(state_dicts), tuple(optimizers))

    def _enter(self, value: Any, place: Place, inside: set[int]) -> Iterator[tuple[Any, Any]]:
        """The children to look at; `inside` has the ids of the values that the walk is inside."""
        if id(value) in inside:
            return
        inside.add(id(value))
        for key, child in children(value):
            self._steps += 1
            if self._steps > MAX_STEPS or len(place) > MAX_DEPTH:
                raise CheckpointError(
                    f"its content is nested over {MAX_DEPTH} levels deep or has over {MAX_STEPS:,} "
                    "parts, more than any checkpoint. Save only the state dict."
                )
            if isinstance(child, _WALKED) and id(child) not in self.left_out:
                yield key, child
        inside.discard(id(value))

    def _is_optimizer(self, key: str, value: Any) -> bool:
        """Judged by its own keys, by those of its parts, or by its name and the tensors in it."""
        if _has_optimizer_keys(value):
            return True
        parts = [child for _, child in children(value)] if isinstance(value, dict | list) else []
        if parts and all(map(_has_optimizer_keys, parts)):
            return True
        return _OPTIMIZER_KEY.fullmatch(key) is not None and any(True for _ in self.tensors(value))


def _has_optimizer_keys(value: Any) -> bool:
    held = value.attributes if isinstance(value, PickledObject) else value
    return isinstance(held, dict) and {"state", "param_groups"} <= held.keys()


def as_leaf(value: Any) -> Leaf | None:
    """The value as a tensor, if it is one; numpy arrays of numbers count, and packed weights."""
    if isinstance(value, PickledArray):
        return value.tensor
    if isinstance(value, PickledObject) and _is_packed(value):
        return QUANTISED
    return value if isinstance(value, StoredTensor | UnreadableTensor) else None


def _is_packed(value: PickledObject) -> bool:
    """Whether it is what torch packs quantised weights into; only its own kernels can read it."""
    name = str(value.cls)
    if name == "torch.ScriptObject" and isinstance(value.state, tuple) and value.state:
        name = str(value.state[-1]) if isinstance(value.state[-1], str) else name
    return _PACKED_CLASS.match(name) is not None


def is_module(value: Any) -> bool:
    """Whether a value is a pickled `torch.nn.Module` or a TorchScript module."""
    if not isinstance(value, PickledObject) or _is_packed(value):
        return False
    scripted = value.cls.module.partition(".")[0] == "__torch__"
    return scripted or {"_parameters", "_modules"} <= value.attributes.keys()


def children(value: Any) -> Iterator[tuple[Any, Any]]:
    """The values directly below one, each with its key, attribute name or index.

    Below a module are only its parameters, buffers and submodules.
    """
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, list | tuple):
        yield from enumerate(value)
    elif isinstance(value, PickledObject) and not is_module(value):
        yield from value.attributes.items()
        yield from value.pairs.items()
        yield from enumerate(value.items)
        yield from enumerate(value.args)
    elif isinstance(value, PickledObject) and "_parameters" in value.attributes:
        gone = value.attributes.get("_non_persistent_buffers_set")
        for part in ("_parameters", "_buffers", "_modules"):
            held = value.attributes.get(part)
            if isinstance(held, dict):
                for key, child in held.items():
                    if child is not None and not (part == "_buffers" and _is_in(key, gone)):
                        yield key, child
        # A quantised layer keeps its weights in attributes; its state dict packs them by itself.
        for key, child in value.attributes.items():
            if isinstance(child, PickledObject) and _is_packed(child):
                yield key, child
    elif isinstance(value, PickledObject):  # of TorchScript
        known = value.state_dict if isinstance(value, ScriptedModule) else value.attributes.keys()
        for key, child in value.attributes.items():
            packed = isinstance(child, PickledObject) and _is_packed(child)
            if is_module(child) or packed or (key in known and as_leaf(child) is not None):
                yield key, child


def _is_in(key: Any, names: Any) -> bool:
    return isinstance(names, set | frozenset) and key in names
