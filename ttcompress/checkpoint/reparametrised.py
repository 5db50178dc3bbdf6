"""Reads a weight that a module computes from other tensors as what the module computes.

Under weight norm, spectral norm or pruning, a state dict holds other tensors than the weight that
the module multiplies by. `fold` puts that weight in their place, under its plain name. Its values
are computed whenever they are read, as the module does in evaluation. To add a kind, write a
`Kind` and list it in `KINDS`, or in `PARAMETRIZATIONS` if it is a `torch.nn.utils.parametrize` one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor

from ttcompress.checkpoint.pickle.objects import PickledObject
from ttcompress.checkpoint.tensors import (
    FLOATS,
    SLAB,
    Bytes,
    StoredTensor,
    check_tensor,
    contiguous_stride,
    read_tensor,
)
from ttcompress.checkpoint.tree import Leaf, Tree, as_leaf, is_module
from ttcompress.errors import CheckpointError

MAX_CHAIN = 4
"""How many times a weight may be computed from one that is computed itself."""

RESTORED_PLAIN = "restored as that plain weight"
"""What the notes say about every such weight."""

_PARAMETRIZED = re.compile(
    r"(?P<owner>(?:.*\.)?)parametrizations\.(?P<name>[^.]+)\.(?P<part>original\d*|\d+\..+)"
)
"""How `torch.nn.utils.parametrize` names what a weight is computed from."""


Found = tuple[str, tuple[str, ...], Leaf]
"""A weight's plain name, the names of its parts, and the weight."""


@dataclass(frozen=True)
class Kind:
    """A way to compute a weight.

    `name` is what users call it; `suffixes` are those of the parts' names, in the order that `fits`
    and `compute` take them. The first part has the weight's shape: `compute` changes its values.
    """

    name: str
    suffixes: tuple[str, ...]
    fits: Callable[..., bool]
    compute: Callable[..., None]


def _blocks(weight: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Runs of rows and where they are: only so much is ever held in float64."""
    rows = max(SLAB // max(weight[0].numel() * 8, 1), 1)
    for begin in range(0, len(weight), rows):
        where = slice(begin, min(begin + rows, len(weight)))
        yield where, weight[where]


def _have_one_shape(original: StoredTensor, mask: StoredTensor) -> bool:
    return original.shape == mask.shape


def _mask(weight: Tensor, mask: Tensor) -> None:
    """weight = original * mask."""
    for where, block in _blocks(weight):
        block.mul_(mask[where].to(weight.dtype))


def _is_norm(v: StoredTensor, g: StoredTensor) -> bool:
    """One value for each slice of v along one axis, or one for all of v."""
    wide = [axis for axis, size in enumerate(g.shape) if size != 1]
    fits = len(wide) <= 1 and all(g.shape[axis] == v.shape[axis] for axis in wide)
    return not g.shape or (len(g.shape) == len(v.shape) and fits)


def _scale(weight: Tensor, g: Tensor) -> None:
    """weight = g * v / |v|, the norm over every axis along which g has one value."""
    g = g.double().reshape(g.shape or (1,) * weight.dim())
    axes = tuple(axis for axis, size in enumerate(g.shape) if size == 1)
    squares = torch.zeros_like(g)
    by_rows = len(g) > 1
    for where, block in _blocks(weight):
        square = block.double().square()
        squares[where if by_rows else slice(1)] += (
            square.sum(axes, keepdim=True) if axes else square
        )
    factors = g / squares.sqrt()
    for where, block in _blocks(weight):
        block.copy_(block.double() * (factors[where] if by_rows else factors))


def _axes(shape: Iterable[int], u: int, v: int) -> list[int]:
    """Which axes of a weight can be the rows of the matrix that u and v are singular vectors of."""
    sizes = tuple(shape)
    return [axis for axis in (0, 1) if sizes[axis : axis + 1] == (u,) and prod(sizes) == u * v]


def _are_vectors(weight: StoredTensor, u: StoredTensor, v: StoredTensor) -> bool:
    matrix = len(weight.shape) > 1 and len(u.shape) == len(v.shape) == 1
    return matrix and bool(_axes(weight.shape, u.shape[0], v.shape[0]))


def _divide(weight: Tensor, u: Tensor, v: Tensor) -> None:
    """weight = W / (u' W v), u and v being estimates of the first pair of singular vectors.

    Raises:
        CheckpointError: W is square, and it is not clear whether u belongs to rows or columns.
    """
    u, v = u.double(), v.double()
    values = {}
    for axis in _axes(weight.shape, len(u), len(v)):
        total = torch.zeros((), dtype=torch.float64)
        for where, block in _blocks(weight):
            cube = block.double().reshape(*block.shape[:2], -1)
            if axis == 0:
                total += torch.einsum("ros,r,os->", cube, u[where], v.view(weight.shape[1], -1))
            else:
                total += torch.einsum("ros,o,rs->", cube, u, v.view(len(weight), -1)[where])
        values[axis] = total
    sigma = next(iter(values.values()))
    if any(value > sigma for value in values.values()):
        raise CheckpointError(
            "is under spectral norm, and its vectors fit rows and columns alike. "
            "Remove the spectral norm before you save the model."
        )
    for _, block in _blocks(weight):
        block.copy_(block.double() / sigma)


WEIGHT_NORM = Kind("weight norm", ("_v", "_g"), _is_norm, _scale)
SPECTRAL_NORM = Kind("spectral norm", ("_orig", "_u", "_v"), _are_vectors, _divide)
PRUNING = Kind("pruning", ("_orig", "_mask"), _have_one_shape, _mask)

KINDS = (PRUNING, SPECTRAL_NORM, WEIGHT_NORM)
"""Those that `torch.nn.utils` computes in hooks, whose parts are named after the weight."""

_WEIGHT = re.compile(r"(.*[._])?(weight|bias|original)[^.]*")
"""Names after which parts are: others, such as `query_v` and `query_g`, can be anything."""

PARAMETRIZATIONS: Mapping[frozenset[str], Kind] = {frozenset({"_u", "_v"}): SPECTRAL_NORM}
"""Those of `torch.nn.utils.parametrize` with one original, by the tensors that they keep.

An orthogonal one is not among them: a state dict does not say which of three maps it is.
"""


@dataclass(frozen=True)
class ComputedBytes:
    """The values of a weight, computed from its parts whenever they are read."""

    kind: Kind
    parts: tuple[StoredTensor, ...]
    storages: Mapping[str, Bytes] = field(repr=False)

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self.parts[0].bytes

    def read(self, start: int, stop: int) -> memoryview:
        """The bytes from `start` up to `stop`; all of them are computed.

        Raises:
            CheckpointError: the parts cannot be read, or leave open how the weight is computed.
        """
        weight, *others = (read_tensor(part, self.storages) for part in self.parts)
        self.kind.compute(weight, *others)
        return weight.view(torch.uint8).numpy().data.cast("B")[start:stop]

    def kinds(self) -> Iterator[str]:
        """The names of all kinds that apply, the last one first."""
        yield self.kind.name
        for part in self.parts:
            inner = self.storages[part.storage]
            if isinstance(inner, ComputedBytes):
                yield from inner.kinds()


def stored_parts(tensor: StoredTensor, storages: Mapping[str, Bytes]) -> Iterator[StoredTensor]:
    """The tensors in the file that a tensor is computed from; itself if it is in the file."""
    held = storages[tensor.storage]
    if isinstance(held, ComputedBytes):
        for part in held.parts:
            yield from stored_parts(part, storages)
    else:
        yield tensor


def is_parametrized(name: str) -> bool:
    """Whether a tensor is what a weight is computed from, in a way that is not known here."""
    return _PARAMETRIZED.fullmatch(name) is not None


def fold(state_dict: Any, storages: Mapping[str, Bytes]) -> dict[str, Bytes]:
    """Put every weight of the known kinds in the place of its parts, in the state dict itself.

    A pickled module with such weights becomes its flat state dict. What is not of a known kind
    stays as it is.

    Returns:
        The storages, and those of the weights.

    Raises:
        CheckpointError: a part goes beyond its storage, or the content is nested too deeply.
    """
    tree, folder = Tree(state_dict), _Folder(dict(storages))
    for value in tree.values():
        if isinstance(value, PickledObject) and is_module(value):
            named = {".".join(place): leaf for place, leaf in tree.tensors(value)}
            if folder.fold(named):
                value.state = {
                    **value.attributes,
                    "_parameters": named,
                    "_buffers": {},
                    "_modules": {},
                }
        elif isinstance(value, dict):
            folder.fold(value)
        elif isinstance(value, PickledObject):
            folder.fold(value.attributes)
            folder.fold(value.pairs)
    return folder.storages


@dataclass
class _Folder:
    """Folds the weights of one file; equal parts give one weight, so that ties stay."""

    storages: dict[str, Bytes]
    known: dict[tuple[str, tuple[StoredTensor, ...]], StoredTensor] = field(default_factory=dict)
    depths: dict[str, int] = field(default_factory=dict)

    def fold(self, named: dict[Any, Any]) -> bool:
        """Fold the weights among the entries of a dictionary; whether there were any."""
        changed = False
        for _ in range(MAX_CHAIN):  # a part can be computed itself
            tensors = {
                key: leaf
                for key, value in named.items()
                if isinstance(key, str) and isinstance(leaf := as_leaf(value), StoredTensor)
            }
            found: dict[str, Found] = {}
            for one in (*self._in_hooks(tensors), *self._parametrized(tensors)):
                if one[0] not in named:
                    found.setdefault(one[0], one)
            if not found:
                break
            _replace(named, found.values())
            changed = True
        return changed

    def _in_hooks(self, tensors: Mapping[str, StoredTensor]) -> Iterator[Found]:
        for key in tensors:
            for kind in KINDS:
                name = key.removesuffix(kind.suffixes[0])
                keys = tuple(name + suffix for suffix in kind.suffixes)
                if name != key and tensors.keys() >= {*keys} and _WEIGHT.fullmatch(name):
                    weight = self._compute(kind, name, tuple(tensors[key] for key in keys))
                    if weight is not None:
                        yield name, keys, weight
                        break

    def _parametrized(self, tensors: Mapping[str, StoredTensor]) -> Iterator[Found]:
        groups: dict[str, dict[str, str]] = {}
        for key in tensors:
            if match := _PARAMETRIZED.fullmatch(key):
                groups.setdefault(match["owner"] + match["name"], {})[match["part"]] = key
        for name, keys in groups.items():
            weight = self._chain(name, {part: tensors[key] for part, key in keys.items()})
            if weight is not None:
                yield name, tuple(keys.values()), weight

    def _chain(self, name: str, parts: dict[str, StoredTensor]) -> StoredTensor | None:
        """The weight after all parametrizations, if each of them is known."""
        at, weight = 0, parts.pop("original", None)
        if weight is None and {"original0", "original1"} <= parts.keys():
            pair = (parts.pop("original1"), parts.pop("original0"))
            at, weight = 1, self._compute(WEIGHT_NORM, name, pair)
        elif not parts:  # what computes the weight keeps no tensor, so it can be anything
            return None
        while parts and weight is not None:
            kept = {part.partition(".")[2] for part in parts if part.startswith(f"{at}.")}
            kind = PARAMETRIZATIONS.get(frozenset(kept))
            if kind is None:
                return None
            own = (parts.pop(f"{at}.{suffix}") for suffix in kind.suffixes[1:])
            weight = self._compute(kind, name, (weight, *own))
            at += 1
        return weight

    def _compute(
        self, kind: Kind, name: str, leaves: tuple[StoredTensor, ...]
    ) -> StoredTensor | None:
        """The weight computed from parts, or None if they are not of this kind."""
        if not leaves[0].shape or 0 in leaves[0].shape or leaves[0].dtype not in FLOATS:
            return None
        if any(part.dtype.is_complex for part in leaves) or not kind.fits(*leaves):
            return None
        if (kind.name, leaves) in self.known:
            return self.known[kind.name, leaves]
        depth = 1 + max(self.depths.get(part.storage, 0) for part in leaves)
        if depth > MAX_CHAIN:
            return None
        for part in leaves:
            try:
                check_tensor(part, self.storages[part.storage])
            except CheckpointError as error:
                raise error.at(name) from error
        key = f"computed {len(self.known)}"
        while key in self.storages:  # a safetensors file names its storages as it likes
            key += "'"
        self.storages[key] = ComputedBytes(kind, leaves, self.storages)
        self.depths[key] = depth
        shape = leaves[0].shape
        made = StoredTensor(key, leaves[0].dtype, 0, shape, contiguous_stride(shape))
        self.known[kind.name, leaves] = made
        return made


def _replace(named: dict[Any, Any], found: Iterable[Found]) -> None:
    """Put each weight where the first of its parts is, and take the parts away."""
    weights = {key: one for one in found for key in one[1]}
    entries = list(named.items())
    named.clear()
    for key, value in entries:
        name, _, weight = weights.get(key, (key, (), value))
        named.setdefault(name, weight)
