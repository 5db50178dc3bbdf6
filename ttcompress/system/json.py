"""Reads JSON that others wrote, within bounds of memory and depth, and readies values for JSON.

Python's own reader accepts more than the writers of JSON mean: a repeated key silently wins, and
half of a surrogate pair becomes a character that nothing can write again. It also accepts any
amount.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from math import isfinite
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")

MAX_VALUES = 10_000_000
"""About what a million tensors need; Python takes up to 70 bytes for each."""

_ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def read_json(text: bytes) -> Any:
    """The value of a JSON text in UTF-8.

    Raises:
        ValueError: no JSON, or none that is read here: too many values, nested too deep, a key
            twice in one object, an integer of thousands of digits, half a surrogate pair.

    >>> read_json(b'{"a": [1, 2.5]}')
    {'a': [1, 2.5]}
    """
    values = sum(map(text.count, (b",", b"[", b"{")))
    if values > MAX_VALUES:
        raise ValueError(f"{values:,} values, and at most {MAX_VALUES:,} are read")
    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=_object)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if _ESCAPED_SURROGATE.search(text):
        json.dumps(value, ensure_ascii=False).encode()  # cannot encode half a pair
    return value


def finite(value: Any) -> Any:
    """Plain values with None for every float that JSON has no word for: infinity and NaN.

    >>> finite({"a": [1.5, float("inf")]})
    {'a': [1.5, None]}
    """
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def plain(value: Any) -> Any:
    """Dicts, lists and single values for a dataclass and all that is in it, as JSON has them.

    >>> from ttcompress.system.timing import Timing
    >>> plain((Timing(2.0, 1.0, 3.0, calls=9),))
    [{'median': 2.0, 'low': 1.0, 'high': 3.0, 'calls': 9}]
    """
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, PurePath) else value


def validated(kind: type[T], document: Any) -> T:
    """A dataclass out of the plain values that `plain` makes; unknown keys are ignored.

    Raises:
        ValueError: the values do not fit the fields of the class.
    """
    found: T = _adapter(cast(Any, kind)).validate_python(document)
    return found


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter  # heavy, and needed only where a file is read

    return TypeAdapter(kind)


def check_integers(value: Any) -> None:
    """Hold every integer in plain values to 64 bits: beyond, arithmetic with floats fails.

    Raises:
        ValueError: one has more.
    """
    pending = [value]
    while pending:
        one = pending.pop()
        if isinstance(one, dict | list):
            pending.extend(one.values() if isinstance(one, dict) else one)
        elif isinstance(one, int) and not -(2**63) <= one < 2**63:
            raise ValueError("an integer of over 64 bits")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        (repeated, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {repeated[:80]!r} is written twice")
    return found
