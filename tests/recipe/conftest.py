"""A validator for the few words of JSON Schema that the recipe's schema uses."""

from __future__ import annotations

import re
from collections.abc import Callable
from operator import ge, gt, le, lt
from typing import Any

import pytest

Accepts = Callable[[dict[str, Any], Any], bool]

TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}
BOUNDS = {"minimum": ge, "exclusiveMinimum": gt, "maximum": le, "exclusiveMaximum": lt}


def has_type(value: Any, name: str) -> bool:
    return isinstance(value, TYPES[name]) and (name == "boolean" or not isinstance(value, bool))


def validates(schema: dict[str, Any], value: Any) -> bool:
    return all(_holds(word, wanted, schema, value) for word, wanted in schema.items())


def _holds(word: str, wanted: Any, schema: dict[str, Any], value: Any) -> bool:
    match word:
        case "$schema" | "title" | "description" | "default":
            return True
        case "type":
            return any(
                has_type(value, name) for name in ([wanted] if isinstance(wanted, str) else wanted)
            )
        case "enum":
            return any(type(one) is type(value) and one == value for one in wanted)
        case "anyOf":
            return any(validates(one, value) for one in wanted)
        case "pattern":
            return not isinstance(value, str) or bool(re.search(wanted, value))
        case "items":
            return not isinstance(value, list) or all(validates(wanted, one) for one in value)
        case "minItems":
            return not isinstance(value, list) or len(value) >= wanted
        case "required":
            return not isinstance(value, dict) or value.keys() >= set(wanted)
        case "properties":
            return not isinstance(value, dict) or all(
                validates(wanted[key], value[key]) for key in wanted.keys() & value.keys()
            )
        case "additionalProperties":
            others = value.keys() - schema["properties"].keys() if isinstance(value, dict) else ()
            return all(wanted and validates(wanted, value[key]) for key in others)
        case _ if word in BOUNDS:
            return not has_type(value, "number") or BOUNDS[word](value, wanted)
    raise AssertionError(f"the validator does not know the word {word!r}")


@pytest.fixture(scope="session")
def accepts() -> Accepts:
    """Whether a schema accepts a value."""
    return validates
