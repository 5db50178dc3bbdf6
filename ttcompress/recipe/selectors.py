"""A selector (a role, a glob or `re:...`) and a weight come in; whether they match goes out."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import Protocol

from ttcompress.errors import RecipeError
from ttcompress.model.weights import ROLES
from ttcompress.recipe.units import parse_text

ALL = "all"
SELECTOR_ROLES: tuple[str, ...] = (*ROLES, ALL)
REGEX = "re:"


def check_selector(value: object) -> str:
    """Text that can select weights; a regular expression must compile."""
    selector = parse_text(value)
    if selector.startswith(REGEX):
        try:
            re.compile(selector.removeprefix(REGEX))
        except (re.error, RecursionError, OverflowError) as error:
            raise RecipeError(
                f"{selector!r} is not a regular expression: {error}."
                "\nWithout `re:` the text is a glob, where * stands for anything."
            ) from error
    return selector


def names_a_role(selector: str) -> bool:
    """Whether a selector speaks of a kind of weight, which a model may not have, not of names."""
    return selector in SELECTOR_ROLES


class Selectable(Protocol):
    """Whatever has a role and names: a weight, or what a report tells of one."""

    @property
    def role(self) -> str:
        """One of `ROLES`."""
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
    """
    if selector in SELECTOR_ROLES:
        return selector in (ALL, weight.role)
    if selector.startswith(REGEX):
        pattern = re.compile(selector.removeprefix(REGEX))
        return any(pattern.fullmatch(name) for name in weight.names)
    return any(fnmatchcase(name, selector) for name in weight.names)
