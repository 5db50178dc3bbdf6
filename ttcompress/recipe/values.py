"""Reads single values of recipes and options: sizes, factors, drops, ranks, words.

Each function raises `RecipeError` with the fact and the cure, without the key; each constant in
capitals is a `Kind` for declaring keys. `bool` is never a number here, and a number is
never text, except for a size (`2MB`), a drop (`1%`) and ranks (`8,24,12`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from math import isfinite
from operator import ge, gt, le, lt

from ttcompress.errors import RecipeError
from ttcompress.recipe.sections import Json, Kind, value
from ttcompress.recipe.wording import describe, suggest

LARGEST = 2**63 - 1
"""Whole numbers stop here: they are counts of bytes, of values or of ranks."""

Scalar = str | int | float | bool
Option = Scalar | tuple[Scalar, ...]

# They match text without space around it. The JSON Schema uses them too, so they have no flags and
# no syntax that only Python knows.
_DECIMAL = r"[0-9]{1,15}(?:\.[0-9]{1,15})?"
_SIZE = rf"({_DECIMAL})\s*((?:[kKmMgGtT][iI]?)?[bB])?"
_PERCENT = rf"({_DECIMAL})\s*%"
_RANKS = r"[0-9]{1,18}(?:\s*,\s*[0-9]{1,18})*"
_EXPONENT = re.compile(r"([-+]?[0-9]+)(\.[0-9]*)?[eE]([-+]?)([0-9]+)")

_BOUNDS = {
    "minimum": (ge, "from"),
    "exclusiveMinimum": (gt, "above"),
    "maximum": (le, "to"),
    "exclusiveMaximum": (lt, "to below"),
}
"""The words of JSON Schema: what they compare by, and what the reference calls them."""


@dataclass(frozen=True)
class Drop:
    """How much a metric may worsen: `amount` of its value before (`relative`), or in its own unit.

    >>> Drop(0.01, relative=True).written, Drop(0.05, relative=False).written
    ('1%', 0.05)
    """

    amount: float
    relative: bool

    @property
    def written(self) -> str | float:
        """As a recipe spells it; `parse_drop` reads it back."""
        if not self.relative:
            return self.amount
        return f"{(Decimal(repr(self.amount)) * 100).normalize():f}%"

    def most(self, before: float) -> float:
        """The most that a metric may worsen from a value, in its own unit; from 0, a part is 0.

        >>> Drop(0.5, relative=True).most(-4.0), Drop(0.5, relative=False).most(-4.0)
        (2.0, 0.5)
        """
        return self.amount * abs(before) if self.relative else self.amount


def parse_number(value: object) -> float:
    """A finite number that is not text."""
    if isinstance(value, str):
        raise RecipeError(f"expected a number, got the text {value[:60]!r}.{_number_cure(value)}")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RecipeError(f"expected a number, got {describe(value)}.")
    if not isfinite(value) or abs(value) > LARGEST:
        raise RecipeError(f"expected a finite number, got {describe(value)}.")
    return float(value)


def _number_cure(text: str) -> str:
    if exponent := _EXPONENT.fullmatch(text):
        whole, fraction, sign, power = exponent.groups()
        fraction = fraction if fraction and fraction != "." else ".0"
        good = f"{whole}{fraction}e{sign or '+'}{power}"
        return f"\nYAML 1.1 reads {text} as text; write {good}."
    try:
        float(text)
    except ValueError:
        return ""
    return f"\nWrite it without quotes: {text}."


def _parse_whole(value: object, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        cure = _number_cure(value) if isinstance(value, str) else ""
        raise RecipeError(f"expected a whole number, got {describe(value)}.{cure}")
    if not least <= value <= LARGEST:
        raise RecipeError(f"expected a whole number of at least {least}, got {describe(value)}.")
    return value


def parse_size(value: object) -> int:
    """Bytes: a whole number, or text with a unit. A fraction of a byte is dropped.

    >>> parse_size("2MB"), parse_size("1.5 KiB"), parse_size(4096)
    (2000000, 1536, 4096)
    """
    if isinstance(value, str):
        found = re.fullmatch(_SIZE, value.strip())
        if not found:
            raise RecipeError(
                f"expected a size, got {describe(value)}.\nWrite a number of bytes, or one with"
                " kB, MB, GB, KiB, MiB or GiB: 2MB is 2,000,000."
            )
        unit = (found[2] or "b").lower()
        power = "bkmgt".index(unit[0])
        value = int(Decimal(found[1]) * (1024 if "i" in unit else 1000) ** power)
    return _parse_whole(value)


def parse_drop(value: object) -> Drop:
    """`1%` of the metric's value before, or a bare number in the metric's own unit; or a `Drop`.

    >>> parse_drop("1%")
    Drop(amount=0.01, relative=True)
    """
    if isinstance(value, Drop):
        return value
    if isinstance(value, str):
        if percent := re.fullmatch(_PERCENT, value.strip()):
            return Drop(float(Decimal(percent[1]) / 100), relative=True)
        raise RecipeError(
            f"expected a drop, got {describe(value)}."
            "\nWrite 1% (of the value before), or a bare number in the metric's own unit."
        )
    number = parse_number(value)
    if number < 0:
        raise RecipeError(
            f"a drop must be 0 or more, got {describe(value)}."
            f"\nIt says how much worse, whichever direction is better: write {-number:g}."
        )
    return Drop(number, relative=False)


def parse_ranks(value: object) -> int | tuple[int, ...]:
    """Read ranks: a single number is a cap, several are the ranks of one train.

    >>> parse_ranks("8,24,12"), parse_ranks([8, 24]), parse_ranks("32")
    ((8, 24, 12), (8, 24), 32)
    """
    if isinstance(value, list | tuple):
        return tuple(map(_parse_whole, value))
    if isinstance(value, str):
        if not re.fullmatch(_RANKS, value.strip()):
            raise RecipeError(
                f"expected ranks, got {describe(value)}."
                "\nWrite one number, or several with commas: 8,24,12."
            )
        ranks = tuple(_parse_whole(int(part)) for part in value.split(","))
        return ranks if len(ranks) > 1 else ranks[0]
    return _parse_whole(value)


def parse_text(value: object) -> str:
    """Read text that is not empty and could be a path."""
    if not isinstance(value, str) or not value.strip():
        raise RecipeError(f"expected text, got {describe(value)}.")
    if "\0" in value:
        raise RecipeError(
            f"{value!r} contains the character NUL, which no name can have. Remove it."
        )
    return value


def parse_option(value: object) -> Option:
    """A task's option: text, a finite number, true or false, or a list of them.

    >>> parse_option(["noun", "verb"]), parse_option(False)
    (('noun', 'verb'), False)
    """
    if isinstance(value, list | tuple):
        return tuple(_parse_scalar(item) for item in value)
    return _parse_scalar(value)


def _parse_scalar(value: object) -> Scalar:
    if isinstance(value, str):
        if _EXPONENT.fullmatch(value):
            raise RecipeError(f"got the text {value[:60]!r}.{_number_cure(value)}")
        return value
    if isinstance(value, bool):
        return value
    if not isinstance(value, int | float):
        raise RecipeError(f"expected text, a number, true or false; got {describe(value)}.")
    parse_number(value)
    return value


def whole(least: int) -> Kind:
    """Whole numbers from `least` up."""
    schema: Json = {"type": "integer", "minimum": least}
    return value(lambda v: _parse_whole(v, least), f"a whole number from {least}", schema, int)


def number(fact: str, cure: str, **bounds: float) -> Kind:
    """Numbers within bounds, in JSON Schema's words; `fact` states them, `cure` what to write."""

    def parse(value: object) -> float:
        number = parse_number(value)
        if not all(_BOUNDS[name][0](number, bound) for name, bound in bounds.items()):
            raise RecipeError(f"{fact}; got {describe(value)}.\n{cure}")
        return number

    words = " ".join(f"{_BOUNDS[name][1]} {bound:g}" for name, bound in bounds.items())
    return value(parse, f"a number {words}", {"type": "number", **bounds}, float)


def one_of(*words: str) -> Kind:
    """One of these words."""
    return name_in(lambda: words)


def name_in(names: Callable[[], Sequence[str]]) -> Kind:
    """One of the names that are registered when a recipe is read."""

    def parse(value: object) -> str:
        known = names()
        if isinstance(value, str) and value in known:
            return value
        found = f"{describe(value)}.{suggest(value, known)}"
        raise RecipeError(f"expected one of {', '.join(known)}; got {found}")

    now = names()
    return value(parse, ", ".join(f"`{word}`" for word in now), {"enum": [*now]})


def format_version(document: str, newest: int) -> Kind:
    """The version of a document's format, as `version: 1`."""

    def parse(value: object) -> int:
        if (version := _parse_whole(value)) > newest:
            raise RecipeError(
                f"the {document} has version {version}, but this program reads version {newest}."
                "\nUpdate ttcompress."
            )
        return version

    return value(parse, f"`{newest}`", {"enum": [*range(1, newest + 1)]}, int)


def _parse_factor(value: object) -> float:
    if (number := parse_number(value)) >= 1:
        return number
    cure = "For an eighth of the size, write 8."
    if number > 0:
        cure = f"To keep {number:.4g} of the size, write {1 / number:.4g}."
    fact = "a factor says how many times smaller, so it must be 1 or more"
    raise RecipeError(f"{fact}; got {describe(value)}.\n{cure}")


def _parse_modes(value: object) -> tuple[int, ...]:
    if not isinstance(value, list | tuple) or not value:
        raise RecipeError(f"expected a list such as [4, 8, 16], got {describe(value)}.")
    return tuple(map(_parse_whole, value))


def _parse_flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise RecipeError(f"expected true or false, got {describe(value)}.")
    return value


def _or_text(schema: Json, pattern: str) -> Json:
    return {"anyOf": [schema, {"type": "string", "pattern": rf"^\s*{pattern}\s*$"}]}


COUNT = whole(1)
_COUNTS: Json = {"type": "array", "items": COUNT.schema}
_SCALAR: Json = {"type": ["string", "number", "boolean"]}

FACTOR = value(_parse_factor, "a number from 1", {"type": "number", "minimum": 1}, float)
TOLERANCE = number(
    "a tolerance is a relative error from 0 to below 1",
    "For an error of 10 % in each weight, write 0.1.",
    minimum=0,
    exclusiveMaximum=1,
)
SIZE = value(parse_size, "bytes, such as `2MB`, `1.5 KiB` or `4096`", _or_text(COUNT.schema, _SIZE))
DROP = value(
    parse_drop,
    "`1%` of the value before, or a number in the metric's unit",
    _or_text({"type": "number", "minimum": 0}, _PERCENT),
)
MODES = value(_parse_modes, "a list such as `[4, 8, 16]`", _COUNTS | {"minItems": 1})
RANKS = value(
    parse_ranks,
    "a whole number, or a list: `[8, 24, 12]`",
    _or_text({"anyOf": [COUNT.schema, _COUNTS]}, _RANKS),
)
TEXT = value(parse_text, "text", {"type": "string", "pattern": r"\S"})
FLAG = value(_parse_flag, "`true` or `false`", {"type": "boolean"}, bool)
OPTION = value(
    parse_option,
    "text, a number, `true`, `false`, or a list of them",
    {"anyOf": [_SCALAR, {"type": "array", "items": _SCALAR}]},
)
