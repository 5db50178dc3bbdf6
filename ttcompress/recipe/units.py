"""A value comes in as a recipe or an option spells it; its number goes out: sizes, ranks, factors.

Each reader raises `RecipeError` with the bare fact and the cure; the caller adds the key.
`bool` is never a number here, and a number is never text, but for a size (`2MB`), a drop (`1%`) and
ranks (`8,24,12`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from math import isfinite

from ttcompress.errors import RecipeError
from ttcompress.planning.formats import FORMATS
from ttcompress.recipe.wording import described, nearest

SIZE_UNITS: dict[str, int] = {
    "b": 1,
    **{f"{letter}b": 1000**power for power, letter in enumerate("kmgt", start=1)},
    **{f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", start=1)},
}
"""Bytes of each unit in lower case: a kB is 1000 bytes, a KiB 1024."""

LARGEST = 2**63 - 1
"""Whole numbers stop here: they are counts of bytes, of values or of ranks."""

Scalar = str | int | float | bool

_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*([a-z]*)")
_PERCENT = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*%")
_EXPONENT = re.compile(r"([-+]?[0-9]+)(\.[0-9]*)?[eE]([-+]?)([0-9]+)")


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
    """A finite number that is not text.

    >>> parse_number(8)
    8.0
    """
    if isinstance(value, str):
        raise RecipeError(f"expected a number, got the text {value[:60]!r}.{_number_cure(value)}")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RecipeError(f"expected a number, got {described(value)}.")
    if not isfinite(value) or abs(value) > LARGEST:
        raise RecipeError(f"expected a finite number, got {described(value)}.")
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


def parse_factor(value: object) -> float:
    """How many times smaller (or fewer): 1 or more.

    >>> parse_factor(8)
    8.0
    """
    number = parse_number(value)
    if number < 1:
        raise RecipeError(
            f"a factor says how many times smaller, so it is 1 or more; got {described(value)}."
            f"\n{_factor_cure(number)}"
        )
    return number


def _factor_cure(number: float) -> str:
    if 0 < number < 1:
        return f"To keep {number:.4g} of the size, write {1 / number:.4g}."
    return "For an eighth of the size, write 8."


def number_that(holds: Callable[[float], bool], fact: str, cure: str) -> Callable[[object], float]:
    """A reader of numbers for which something holds; `fact` says what, `cure` what to write."""

    def parse(value: object) -> float:
        number = parse_number(value)
        if not holds(number):
            raise RecipeError(f"{fact}; got {described(value)}.\n{cure}")
        return number

    return parse


parse_tolerance = number_that(
    lambda number: 0 <= number < 1,
    "a tolerance is a relative error from 0 to below 1",
    "For an error of 10 % in each weight, write 0.1.",
)


def whole(least: int) -> Callable[[object], int]:
    """A reader of whole numbers from `least` up."""

    def parse(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            cure = _number_cure(value) if isinstance(value, str) else ""
            raise RecipeError(f"expected a whole number, got {described(value)}.{cure}")
        if not least <= value <= LARGEST:
            raise RecipeError(
                f"expected a whole number of at least {least}, got {described(value)}."
            )
        return value

    return parse


parse_count = whole(1)


def parse_size(value: object) -> int:
    """Bytes: a whole number, or text with a unit. A part of a byte is left off.

    >>> parse_size("2MB"), parse_size("1.5 KiB"), parse_size(4096)
    (2000000, 1536, 4096)
    """
    if not isinstance(value, str):
        return parse_count(value)
    found = _SIZE.fullmatch(value.strip().lower())
    unit = found and SIZE_UNITS.get(found[2] or "b")
    if not found or not unit:
        raise RecipeError(
            f"expected a size, got {described(value)}."
            "\nWrite a number of bytes, or one with kB, MB, GB, KiB, MiB or GiB: 2MB is 2,000,000."
        )
    return parse_count(int(Decimal(found[1]) * unit))


def parse_drop(value: object) -> Drop:
    """`1%` of the metric's value before, or a bare number in the metric's own unit; or a `Drop`.

    >>> parse_drop("1%")
    Drop(amount=0.01, relative=True)
    """
    if isinstance(value, Drop):
        return value
    if isinstance(value, str) and (percent := _PERCENT.fullmatch(value.strip())):
        return Drop(float(Decimal(percent[1]) / 100), relative=True)
    if isinstance(value, str):
        raise RecipeError(
            f"expected a drop, got {described(value)}."
            "\nWrite 1% (of the value before), or a bare number in the metric's own unit."
        )
    number = parse_number(value)
    if number < 0:
        raise RecipeError(
            f"a drop is 0 or more, got {described(value)}."
            f"\nIt says how much worse, whichever direction is better: write {-number:g}."
        )
    return Drop(number, relative=False)


def parse_ranks(value: object) -> int | tuple[int, ...]:
    """One number is a cap, several are the ranks of one train.

    >>> parse_ranks("8,24,12"), parse_ranks([8, 24]), parse_ranks("32")
    ((8, 24, 12), (8, 24), 32)
    """
    if isinstance(value, list | tuple):
        return tuple(parse_count(item) for item in value)
    if not isinstance(value, str):
        return parse_count(value)
    parts = [part.strip() for part in value.split(",")]
    if not all(re.fullmatch("[0-9]{1,18}", part) for part in parts):
        raise RecipeError(
            f"expected ranks, got {described(value)}."
            "\nWrite one number, or several with commas: 8,24,12."
        )
    ranks = tuple(parse_count(int(part)) for part in parts)
    return ranks if len(ranks) > 1 else ranks[0]


def parse_modes(value: object) -> tuple[int, ...]:
    """A list of one or more modes."""
    if not isinstance(value, list | tuple) or not value:
        raise RecipeError(f"expected a list such as [4, 8, 16], got {described(value)}.")
    return tuple(parse_count(item) for item in value)


def parse_format(text: str) -> str:
    """The format an option names, other people's words translated; `Recipe` judges the rest.

    >>> parse_format("tensor-train"), parse_format("mpo")
    ('mps', 'mpo')
    """
    aliases = {word: one.format for one in FORMATS.values() for word in one.aliases}
    return aliases.get(text.lower(), text)


def one_of(*known: str) -> Callable[[object], str]:
    """A reader of one word out of `known`."""

    def parse(value: object) -> str:
        if not isinstance(value, str) or value not in known:
            raise RecipeError(
                f"expected one of {', '.join(known)}; got {described(value)}."
                + nearest(value, known)
            )
        return value

    return parse


def parse_text(value: object) -> str:
    """Text that is not empty and could be a path."""
    if not isinstance(value, str) or not value.strip():
        raise RecipeError(f"expected text, got {described(value)}.")
    if "\0" in value:
        raise RecipeError(f"{value!r} holds the character NUL, which no name has. Take it out.")
    return value


def parse_flag(value: object) -> bool:
    """true or false, and nothing that merely resembles them."""
    if not isinstance(value, bool):
        raise RecipeError(f"expected true or false, got {described(value)}.")
    return value


def parse_scalar(value: object) -> Scalar:
    """Text, a finite number, true or false.

    >>> parse_scalar("valid.txt"), parse_scalar(32), parse_scalar(False)
    ('valid.txt', 32, False)
    """
    if isinstance(value, str):
        if _EXPONENT.fullmatch(value):
            raise RecipeError(f"got the text {value[:60]!r}.{_number_cure(value)}")
        return value
    if isinstance(value, bool):
        return value
    if not isinstance(value, int | float):
        raise RecipeError(f"expected text, a number, true or false; got {described(value)}.")
    parse_number(value)
    return value


def parse_option(value: object) -> Scalar | tuple[Scalar, ...]:
    """A task's option: one plain value, or a list of them.

    >>> parse_option(["noun", "verb"])
    ('noun', 'verb')
    """
    if isinstance(value, list | tuple):
        return tuple(parse_scalar(item) for item in value)
    return parse_scalar(value)
