"""A tree of values enters, typed JSON leaves, and the other way round.

The JSON keeps what JSON alone would lose: int keys, tuples, sets, bytes, infinities. Whatever is no
JSON scalar or list is an object with one key, its type. A tensor is a reference to its name.
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
from ttcompress.checkpoint.pickle.objects import Global, PickledObject
from ttcompress.checkpoint.stored import StoredTensor
from ttcompress.checkpoint.tree import MAX_DEPTH, Leaf, Steps, is_module, tensors_below
from ttcompress.errors import ArtifactError
from ttcompress.system.text import clip, find_half_surrogate

Json = Any

MAX_CARRIED = 16_000_000
"""Bytes of JSON that may be carried along, beside the tensors."""

MAX_INTEGER_BITS = 10_000  # Python refuses to print longer ones


class NotCarried(Exception):
    """Why a value cannot be carried; caught where it can be left out and named."""


class Carrier:
    """Writes one tree as typed JSON.

    `names` gives each tensor its name. `left_out` and `spine` hold ids: values that are passed by,
    and the dictionaries above the weights. An entry of the spine that cannot be carried is left out
    alone and named in `notes`. `steps` are those of all walks over the file.
    """

    def __init__(
        self,
        names: Mapping[StoredTensor, str],
        left_out: Set[int],
        spine: Set[int],
        steps: Steps,
    ) -> None:
        self.names = names
        self.left_out = left_out
        self.spine = spine
        self.steps = steps
        self.notes: list[str] = []
        self.open: set[int] = set()
        self.left = MAX_CARRIED

    def encode(self, value: Any) -> Json:
        """The typed JSON of a value.

        Raises:
            NotCarried: too large, too deep, within itself, or of a kind that JSON cannot hold.
        """
        if value is None or isinstance(value, bool | int | float | str):
            return self._scalar(value)
        if id(value) in self.open or len(self.open) > MAX_DEPTH:
            raise NotCarried("it is nested too deep, or within itself")
        self.open.add(id(value))
        try:
            self._spend(8)
            return self._container(value)
        finally:
            self.open.discard(id(value))

    def _spend(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise NotCarried(f"over {MAX_CARRIED // 10**6} MB of content beside the tensors")

    def _scalar(self, value: bool | int | float | str | None) -> Json:
        if isinstance(value, int) and value.bit_length() > MAX_INTEGER_BITS:
            raise NotCarried("an integer of thousands of digits")
        if isinstance(value, float) and not math.isfinite(value):
            return {"float": str(value)}
        if isinstance(value, str) and not value.isascii():
            return self._text(value)
        self._spend(2 + (len(value) if isinstance(value, str) else 8))
        return value

    def _text(self, value: str) -> Json:
        """Half of a surrogate pair, which a vocabulary can hold, is in no JSON text."""
        raw = value.encode("utf-8", "surrogatepass")
        self._spend(2 + len(raw))
        if find_half_surrogate(value) is not None:
            return {"surrogates": base64.b64encode(raw).decode("ascii")}
        return value

    def _container(self, value: Any) -> Json:
        if is_module(value):
            found = tensors_below(value, self.steps)
            flat = [[".".join(place), self._name(leaf)] for place, leaf in found]
            return {"dict": [[key, {"tensor": name}] for key, name in flat]}
        if isinstance(value, dict):
            tag = "ordered" if isinstance(value, OrderedDict) else "dict"
            return {tag: self._pairs(value)}
        if isinstance(value, list):
            return self._sequence(value)
        if isinstance(value, PickledObject):
            return {"object": self._stub(value)}
        return self._leaf(value)

    def _leaf(self, value: Any) -> Json:
        match value:
            case tuple():
                return {"tuple": self._sequence(value)}
            case set() | frozenset():
                tag = "frozenset" if isinstance(value, frozenset) else "set"
                return {tag: sorted((self._key(item) for item in value), key=json.dumps)}
            case bytes() | bytearray():
                self._spend(len(value) * 4 // 3)
                return {type(value).__name__: base64.b64encode(value).decode("ascii")}
            case complex():
                return {"complex": [self.encode(value.real), self.encode(value.imag)]}
            case StoredTensor():
                return {"tensor": self._name(value)}
            case PickledArray() if value.tensor is not None:
                return {"ndarray": self._name(value.tensor)}
            case Global() if str(value) in DTYPES:
                return {"dtype": value.name}
            case Global():
                return {"name": str(value)}
        raise NotCarried("a value that is neither plain data nor a tensor")

    def _name(self, leaf: Leaf) -> str:
        """Every tensor below a dictionary, list or object has a name; one inside a set has none."""
        name = self.names.get(leaf) if isinstance(leaf, StoredTensor) else None
        if name is None:
            raise NotCarried("a tensor where none can be named")
        return name

    def _sequence(self, value: Sequence[Any]) -> list[Json]:
        """What is left out leaves None, so that the others keep their places."""
        return [None if id(item) in self.left_out else self.encode(item) for item in value]

    def _pairs(self, value: dict[Any, Any]) -> list[list[Json]]:
        pairs = []
        for key, child in value.items():
            if id(child) in self.left_out:
                continue
            left = self.left
            try:
                pairs.append([self._key(key), self.encode(child)])
            except NotCarried as reason:
                if id(value) not in self.spine:
                    raise
                self.left = left
                self.notes.append(f"`{clip(str(key))}` is not carried along: {reason}")
        return pairs

    def _key(self, value: Any) -> Json:
        """A dictionary key or set element; an object comes back as a dictionary, and is neither."""
        if not _is_key(value):
            raise NotCarried("a key or set element that is an object")
        return self.encode(value)

    def _stub(self, stub: PickledObject) -> Json:
        parts = {"args": stub.args, "state": stub.state, "items": stub.items, "pairs": stub.pairs}
        held = {name: self.encode(part) for name, part in parts.items() if part}
        return {"class": str(stub.cls), **held}


def _is_key(value: Any) -> bool:
    if isinstance(value, tuple | frozenset):
        return all(_is_key(part) for part in value)
    return value is None or isinstance(value, bool | int | float | str | bytes | complex | Global)


def rebuild(carried: Json, tensors: Mapping[str, torch.Tensor]) -> Any:
    """The value that typed JSON stands for, with the tensors put back.

    An object of a class that was not loaded comes back as a dictionary of its attributes. A tensor
    that stands in several places is the same object in all of them.

    Raises:
        ArtifactError: not typed JSON, or a tensor that is not among `tensors`.

    Example:
        >>> rebuild({"dict": [[1, {"tuple": ["a", {"float": "inf"}]}]]}, {})
        {1: ('a', inf)}
    """
    try:
        return _rebuilt(carried, tensors)
    except (LookupError, TypeError, ValueError, RecursionError) as error:
        raise ArtifactError(
            f"its carried content is damaged ({type(error).__name__}: {str(error)[:80]}). "
            "Make the file again."
        ) from error


def _rebuilt(carried: Json, tensors: Mapping[str, torch.Tensor]) -> Any:
    if isinstance(carried, list):
        return [_rebuilt(item, tensors) for item in carried]
    if not isinstance(carried, dict):
        return carried
    ((tag, content),) = carried.items()
    return _DECODERS[tag](content, tensors)


Decoder = Callable[[Any, Mapping[str, torch.Tensor]], Any]


def _sequence(kind: Callable[[list[Any]], Any]) -> Decoder:
    return lambda content, tensors: kind([_rebuilt(item, tensors) for item in content])


def _mapping(kind: Callable[[list[tuple[Any, Any]]], Any]) -> Decoder:
    return lambda content, tensors: kind(
        [(_rebuilt(key, tensors), _rebuilt(value, tensors)) for key, value in content]
    )


def _object(content: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """Attributes and entries if there are any; otherwise the class's name and what it was given."""
    held = {name: _rebuilt(part, tensors) for name, part in content.items()}
    attributes = held["state"] if isinstance(held.get("state"), dict) else {}
    return {**attributes, **held.get("pairs", {})} or held


def _bytes(content: str) -> bytes:
    return base64.b64decode(content, validate=True)


_DECODERS: dict[str, Decoder] = {
    "dict": _mapping(dict),
    "ordered": _mapping(OrderedDict),
    "tuple": _sequence(tuple),
    "set": _sequence(set),
    "frozenset": _sequence(frozenset),
    "complex": _sequence(lambda parts: complex(*parts)),
    "float": lambda content, _: float(content),
    "bytes": lambda content, _: _bytes(content),
    "bytearray": lambda content, _: bytearray(_bytes(content)),
    "surrogates": lambda content, _: _bytes(content).decode("utf-8", "surrogatepass"),
    "dtype": lambda content, _: DTYPES[f"torch.{content}"],
    "name": lambda content, _: str(content),
    "tensor": lambda content, tensors: tensors[content],
    "ndarray": lambda content, tensors: tensors[content].numpy(),
    "object": _object,
}
