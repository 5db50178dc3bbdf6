"""Keeps a file's content other than tensors: `Carrier` writes it as JSON, `rebuild` reads it back.

Plain JSON would lose int keys, tuples, sets, bytes and infinities. So any value but a JSON scalar
or list is written as an object with one key, its type; a tensor is written as its name.
"""

from __future__ import annotations

import base64
import json
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

import torch

from ttcompress.checkpoint.pickle.arrays import PickledArray
from ttcompress.checkpoint.pickle.builders import DTYPES
from ttcompress.checkpoint.pickle.objects import DAMAGE, MAX_INTEGER_BITS, Global, PickledObject
from ttcompress.checkpoint.tensors import StoredTensor
from ttcompress.checkpoint.tree import MAX_DEPTH, Leaf, Tree, is_module
from ttcompress.errors import ArtifactError
from ttcompress.system.text import clip, find_half_surrogate

Json = Any

MAX_CARRIED = 16_000_000
"""Bytes of JSON that may be carried over besides the tensors."""


class NotCarried(Exception):
    """Why a value cannot be carried over; caught where the value can be left out by name."""


class Carrier:
    """Writes values of a tree as typed JSON, without what the tree leaves out.

    `names` gives each tensor its name. `spine` holds the ids of the dictionaries above the weights:
    an entry of one of those that cannot be carried is left out alone: `dropped` has its key and the
    reason.
    """

    def __init__(
        self, tree: Tree, names: Mapping[StoredTensor, str], spine: Set[int] = frozenset()
    ) -> None:
        self.tree = tree
        self.names = names
        self.spine = spine
        self.dropped: list[tuple[str, NotCarried]] = []
        self._inside: set[int] = set()
        self._left = MAX_CARRIED

    def encode(self, value: Any) -> Json:
        """The typed JSON of a value.

        Raises:
            NotCarried: too large, too deep, recursive, or of a kind that JSON cannot hold.
        """
        if value is None or isinstance(value, bool | int | float | str):
            return self._scalar(value)
        if id(value) in self._inside or len(self._inside) > MAX_DEPTH:
            raise NotCarried("it is nested too deeply, or contains itself")
        self._inside.add(id(value))
        try:
            self._spend(8)
            return self._container(value)
        finally:
            self._inside.discard(id(value))

    def _spend(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise NotCarried(
                f"there are over {MAX_CARRIED // 10**6} MB of content besides the tensors"
            )

    def _scalar(self, value: bool | int | float | str | None) -> Json:
        if isinstance(value, str):
            raw = value.encode("utf-8", "surrogatepass")
            self._spend(2 + len(raw))
            if find_half_surrogate(value) is None:
                return value
            return {"surrogates": base64.b64encode(raw).decode("ascii")}  # no JSON can hold it
        if isinstance(value, int) and value.bit_length() > MAX_INTEGER_BITS:
            raise NotCarried("an integer in it has thousands of digits")
        if isinstance(value, float) and not math.isfinite(value):
            return {"float": str(value)}
        self._spend(10)
        return value

    def _container(self, value: Any) -> Json:
        match value:
            case PickledObject() if is_module(value):
                found = self.tree.tensors(value)
                return {"dict": [[".".join(place), self._tensor(leaf)] for place, leaf in found]}
            case PickledObject(args=args, state=state, items=items, pairs=pairs):
                parts = {"args": args, "state": state, "items": items, "pairs": pairs}
                held = {name: self.encode(part) for name, part in parts.items() if part}
                return {"object": {"class": str(value.cls), **held}}
            case OrderedDict():
                return {"ordered": self._pairs(value)}
            case dict():
                return {"dict": self._pairs(value)}
            case list():
                return self._sequence(value)
            case tuple():
                return {"tuple": self._sequence(value)}
            case set() | frozenset():
                keys = sorted((self._key(item) for item in value), key=json.dumps)
                return {type(value).__name__: keys}
            case bytes() | bytearray():
                self._spend(len(value) * 4 // 3)
                return {type(value).__name__: base64.b64encode(value).decode("ascii")}
            case complex():
                return {"complex": [self.encode(value.real), self.encode(value.imag)]}
            case StoredTensor():
                return self._tensor(value)
            case PickledArray(tensor=StoredTensor() as tensor):
                return {"ndarray": self._tensor(tensor)["tensor"]}
            case Global():
                return {"dtype": value.name} if str(value) in DTYPES else {"name": str(value)}
        raise NotCarried("a value in it is neither plain data nor a tensor")

    def _tensor(self, leaf: Leaf) -> dict[str, str]:
        """Every tensor below a dictionary, list or object has a name; one inside a set has none."""
        name = self.names.get(leaf) if isinstance(leaf, StoredTensor) else None
        if name is None:
            raise NotCarried("a tensor in it has no name")
        return {"tensor": name}

    def _sequence(self, value: Sequence[Any]) -> list[Json]:
        """None in place of what is left out, so that the others keep their places."""
        left_out = self.tree.left_out
        return [None if id(item) in left_out else self.encode(item) for item in value]

    def _pairs(self, value: dict[Any, Any]) -> list[list[Json]]:
        pairs = []
        for key, child in value.items():
            if id(child) in self.tree.left_out:
                continue
            left = self._left
            try:
                pairs.append([self._key(key), self.encode(child)])
            except NotCarried as reason:
                if id(value) not in self.spine:
                    raise
                self._left = left
                self.dropped.append((clip(str(key)), reason))
        return pairs

    def _key(self, value: Any) -> Json:
        """A dictionary key or set element; no object, for those are restored as dictionaries."""
        if not _is_key(value):
            raise NotCarried("a key or set element in it is an object")
        return self.encode(value)


def _is_key(value: Any) -> bool:
    if isinstance(value, tuple | frozenset):
        return all(map(_is_key, value))
    return value is None or isinstance(value, bool | int | float | str | bytes | complex | Global)


def rebuild(carried: Json, tensors: Mapping[str, torch.Tensor]) -> Any:
    """Decode typed JSON, with the tensors put back.

    An object of a class that was not loaded comes back as a dictionary of its attributes. A tensor
    that is in several places is the same object in all of them.

    Raises:
        ArtifactError: not typed JSON, or a tensor that is not among `tensors`.

    Example:
        >>> rebuild({"dict": [[1, {"tuple": ["a", {"float": "inf"}]}]]}, {})
        {1: ('a', inf)}
    """
    try:
        return _decode(carried, tensors)
    except DAMAGE as error:
        raise ArtifactError(
            f"its carried content is damaged ({type(error).__name__}: {clip(str(error))}). "
            "Make the file again."
        ) from error


def _decode(carried: Json, tensors: Mapping[str, torch.Tensor]) -> Any:
    if isinstance(carried, list):
        return [_decode(item, tensors) for item in carried]
    if not isinstance(carried, dict):
        return carried
    ((tag, content),) = carried.items()
    if tag in _SEQUENCES:
        return _SEQUENCES[tag]([_decode(item, tensors) for item in content])
    if tag in _MAPPINGS:
        pairs = [(_decode(key, tensors), _decode(value, tensors)) for key, value in content]
        return _MAPPINGS[tag](pairs)
    if tag == "tensor":
        return tensors[content]
    if tag == "ndarray":
        return tensors[content].numpy()
    if tag == "object":
        # Attributes and entries if there are any; else the class's name and what it was given.
        held = {name: _decode(part, tensors) for name, part in content.items()}
        attributes = held["state"] if isinstance(held.get("state"), dict) else {}
        return {**attributes, **held.get("pairs", {})} or held
    return _SCALARS[tag](content)


def _decode_bytes(content: str) -> bytes:
    return base64.b64decode(content, validate=True)


_SEQUENCES: dict[str, Callable[[list[Any]], Any]] = {
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "complex": lambda parts: complex(*parts),
}
_MAPPINGS: dict[str, type[dict[Any, Any]]] = {"dict": dict, "ordered": OrderedDict}
_SCALARS: dict[str, Callable[[Any], Any]] = {
    "float": float,
    "bytes": _decode_bytes,
    "bytearray": lambda content: bytearray(_decode_bytes(content)),
    "surrogates": lambda content: _decode_bytes(content).decode("utf-8", "surrogatepass"),
    "dtype": lambda content: DTYPES[f"torch.{content}"],
    "name": str,
}
