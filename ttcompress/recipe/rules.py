"""Rules: which weights each selects, and how it compresses them.

A selector is a role, a full name, a glob on full names, or `re:` and a regular expression that
matches the full name. Only its full name selects a matrix that no layer is known to use.
`matching.py` gives each weight of a model to the first rule that selects it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Final, Protocol

from ttcompress.errors import RecipeError
from ttcompress.model.weights import ROLES, UNKNOWN
from ttcompress.planning.formats import AUTO as AUTO_FORMAT
from ttcompress.planning.formats import FORMATS, KEEP, decomposing, is_whole
from ttcompress.recipe.sections import Section, Values, declare, value
from ttcompress.recipe.values import MODES, RANKS, TEXT, name_in, parse_text
from ttcompress.recipe.wording import counted
from ttcompress.stores import AUTO, STORES


def _whole_formats() -> tuple[str, ...]:
    return tuple(name for name in FORMATS if is_whole(name))


FORMAT: Final = name_in(lambda: (*decomposing(), AUTO_FORMAT))
RULE_FORMAT: Final = name_in(lambda: (*decomposing(), AUTO_FORMAT, *_whole_formats(), KEEP))
STORE: Final = name_in(lambda: (AUTO, *STORES))

ALL = "all"
SELECTOR_ROLES: tuple[str, ...] = (*ROLES, ALL)
REGEX = "re:"


class Selectable(Protocol):
    """Anything with a role and names: a weight, or its entry in a report."""

    @property
    def role(self) -> str:
        """One of `ROLES`, or `UNKNOWN`."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """All names of a tied weight."""
        ...


def selects(selector: str, weight: Selectable) -> bool:
    """Whether a selector matches a weight, by its role or by any of its names.

    >>> from ttcompress.model.weights import Weight
    >>> tied = Weight("encoder.w", ("encoder.w", "decoder.w"), "embedding", (9, 4), "float32")
    >>> [selects(s, tied) for s in ("embedding", "all", "dec*", "re:.*w", "w")]
    [True, True, True, True, False]
    >>> mask = Weight("w.mask", ("w.mask",), "matrix", (9, 9), "float32")
    >>> [selects(s, mask) for s in ("all", "w.*", "w.mask")]
    [False, False, True]
    """
    if selector in SELECTOR_ROLES:
        return weight.role != UNKNOWN and selector in (ALL, weight.role)
    if selector in weight.names:
        return True
    return weight.role != UNKNOWN and matches_name(selector, weight)


def matches_name(selector: str, weight: Selectable) -> bool:
    """Whether a glob or a regular expression matches any name of a weight, whatever its role."""
    if selector.startswith(REGEX):
        pattern = re.compile(selector.removeprefix(REGEX))
        return any(pattern.fullmatch(name) for name in weight.names)
    return any(fnmatchcase(name, selector) for name in weight.names)


def check_selector(selector: str) -> None:
    """Refuse what begins like a regular expression, but is not one.

    Raises:
        ValueError: it cannot be compiled.
    """
    if selector.startswith(REGEX):
        try:
            re.compile(selector.removeprefix(REGEX))
        except (re.error, RecursionError, OverflowError) as error:
            raise ValueError(f"{selector!r} is not a regular expression: {error}") from error


def _parse_selector(value: object) -> str:
    selector = parse_text(value)
    try:
        check_selector(selector)
    except ValueError as error:
        raise RecipeError(
            f"{error}.\nWithout `re:` the text is a glob, where * stands for anything."
        ) from error
    return selector


SELECTOR: Final = value(
    _parse_selector, f"{', '.join(SELECTOR_ROLES)}, a glob, or `re:...`", TEXT.schema
)


# Each check gets the key's value, the rule's keys before it, and the recipe's keys before `rules`;
# invalid keys are absent from both.


def _check_store(store: str | None, rule: Values, recipe: Values) -> str | None:
    if store and rule.get("format") == KEEP:
        raise RecipeError(
            "a kept weight keeps its number type, but a store is given. Remove the key."
        )
    return store


def _check_modes(
    columns: Sequence[int] | None, rule: Values, recipe: Values
) -> Sequence[int] | None:
    """Refuse modes that no train of the format in force has."""
    rows = rule.get("row_modes")
    if "row_modes" not in rule or (rows is None and columns is None):
        return columns
    if rows is None or columns is None:
        absent = "row_modes" if rows is None else "column_modes"
        raise RecipeError(f"row_modes and column_modes go together, but {absent} is missing.")
    format = _format_in_force(rule, recipe)
    if format in decomposing():
        FORMATS[format].check_modes(rows, columns)
    elif format in (*FORMATS, AUTO_FORMAT, KEEP):
        written = " or ".join(f"`format: {name}`" for name in decomposing())
        raise RecipeError(
            f"only a train has modes, but the format here is {format}."
            f"\nWrite {written} in this rule, or remove the modes."
        )
    return columns


def _interior_ranks(
    ranks: tuple[int, ...] | int | None, rule: Values, recipe: Values
) -> tuple[int, ...] | int | None:
    """The n - 1 interior ranks of n cores; n + 1 ranks with outer ones of 1 are accepted too."""
    format = _format_in_force(rule, recipe)
    if ranks is not None and is_whole(format):
        raise RecipeError(f"a weight of format {format} has no ranks. Remove the key.")
    if not isinstance(ranks, tuple) or not {"row_modes", "column_modes"} <= rule.keys():
        return ranks
    rows, columns = rule["row_modes"], rule["column_modes"]
    if rows is None or columns is None:
        raise RecipeError(
            f"the ranks {list(ranks)} are given without row_modes and column_modes."
            "\nAdd both, or write a single number to cap every rank."
        )
    if format not in decomposing():
        return ranks
    cores = FORMATS[format](rows, columns).cores
    if len(ranks) == cores + 1:
        if (ranks[0], ranks[-1]) != (1, 1):
            raise RecipeError(
                f"{cores + 1} ranks for {counted(cores, 'core')} include the two outer ones, which"
                f" must be 1; got {ranks[0]} and {ranks[-1]}: {list(ranks)}."
            )
        return ranks[1:-1]
    if len(ranks) != cores - 1:
        modes = f"{counted(len(rows), 'row mode')} and {counted(len(columns), 'column mode')}"
        raise RecipeError(
            f"an {format} with {modes} has {counted(cores, 'core')} and needs"
            f" {counted(cores - 1, 'rank')}, got {len(ranks)}: {list(ranks)}."
            "\nA train of n cores has n - 1 ranks; the outer ones are always 1."
        )
    return ranks


def _format_in_force(rule: Values, recipe: Values) -> str | None:
    """The rule's own format, otherwise the recipe's; None if that is invalid."""
    return rule.get("format") or recipe.get("format")


class Rule(Section):
    """What to do with the weights that a selector matches; None leaves it to the recipe.

    `ranks` are interior (one fewer than cores) and fixed; a single number is a cap on all of them.
    """

    weights: str = declare(
        SELECTOR,
        "Weights to select: a role, a full name, a glob on full names, or `re:` and a regular "
        "expression. Only its full name selects a matrix that no layer is known to use.",
        missing="Write a role (recurrent, embedding, linear, all), a glob or `re:...`.",
    )
    format: str | None = declare(RULE_FORMAT, "Format of these weights.  [the recipe's]")
    store: str | None = declare(
        STORE, "Number type of these weights.  [the recipe's]", check=_check_store
    )
    row_modes: tuple[int, ...] | None = declare(
        MODES, "Factors of the number of rows.  [chosen by their error]"
    )
    column_modes: tuple[int, ...] | None = declare(
        MODES, "Factors of the number of columns.  [chosen by their error]", check=_check_modes
    )
    ranks: tuple[int, ...] | int | None = declare(
        RANKS,
        "Fixed interior ranks, one fewer than cores; or a single number that caps them.",
        check=_interior_ranks,
    )
