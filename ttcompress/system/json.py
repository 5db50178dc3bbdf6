"""Reads untrusted JSON within bounds of memory and depth, and prepares values for JSON.

Python's own reader accepts too much: the last of repeated keys silently wins, half of a surrogate
pair becomes a character that nothing can write again, and there is no limit on size.
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
"""About what a million tensors need; Python takes up to 70 bytes for each value."""

_ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def read_json(text: bytes) -> Any:
    """Parse a JSON text in UTF-8.

    Raises:
        ValueError: the text is not JSON, has too many values, is nested too deeply, repeats a key
            in an object, or contains an integer of thousands of digits or half a surrogate pair.

    >>> read_json(b'{"a": [1, 2.5]}')
    {'a': [1, 2.5]}
    """
    values = sum(map(text.count, (b",", b"[", b"{")))
    if values > MAX_VALUES:
        raise ValueError(f"{values:,} values, but at most {MAX_VALUES:,} are read")
    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=_object)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if _ESCAPED_SURROGATE.search(text):
        json.dumps(value, ensure_ascii=False).encode()  # cannot encode half a pair
    return value


def finite(value: Any) -> Any:
    """Replace the floats that JSON cannot write, infinity and NaN, by None.

    >>> finite({"a": [1.5, float("inf")]})
    {'a': [1.5, None]}
    """
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def plain(value: Any) -> Any:
    """Turn a dataclass and everything in it into the dicts, lists and values of JSON.

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


def validate(kind: type[T], document: Any) -> T:
    """Make a dataclass from the plain values that `plain` returns; unknown keys are ignored.

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
    """Check that every integer fits in 64 bits: arithmetic of larger ones with floats fails.

    Raises:
        ValueError: one does not.
    """
    pending = [value]
    while pending:
        one = pending.pop()
        if isinstance(one, dict | list):
            pending.extend(one.values() if isinstance(one, dict) else one)
        elif isinstance(one, int) and not -(2**63) <= one < 2**63:
            raise ValueError("an integer has more than 64 bits")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        (repeated, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {repeated[:80]!r} is given twice")
    return found
