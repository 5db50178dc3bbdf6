"""Words values, counts and misspelt keys for error messages."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def describe(value: object) -> str:
    """A value as an error message names it: `the text '8'`, `true`, `the list [1, 2]`."""
    shown = repr(value)
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    match value:
        case None:
            return "nothing"
        case bool():
            return shown.lower()
        case str():
            return f"the text {shown}"
        case list() | tuple():
            return f"the list {shown}"
        case dict():
            return f"the keys {shown}"
        case _:
            return shown


def counted(number: int, noun: str) -> str:
    """A number with its noun.

    >>> counted(1, "core"), counted(2, "core"), counted(0, "rank")
    ('1 core', '2 cores', 'no ranks')
    """
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"


def suggest(word: object, known: Iterable[str]) -> str:
    """` Did you mean ...?` where something known is near, otherwise nothing."""
    found = get_close_matches(str(word)[:80].lower(), list(known), n=1)
    return f" Did you mean `{found[0]}`?" if found else ""
