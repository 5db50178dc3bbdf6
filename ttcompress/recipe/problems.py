"""Problems found in a document, and the message that lists all of them with their keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ttcompress.recipe.wording import counted

KeyPath = tuple[str | int, ...]
"""Where a value stands in a recipe: ("rules", 0, "ranks"). The recipe itself is ()."""

MOST_SHOWN = 20

CURE_INDENT = 6
"""Spaces before the lines of a cure in a message of several problems."""

MOST_CHARACTERS = 256_000
"""About a hundred pages; anything larger takes seconds to read, and is not a recipe."""


@dataclass(frozen=True)
class Problem:
    """What is wrong at a key; the cure, if any, follows on further lines."""

    path: KeyPath
    message: str
    line: int | None = None


@dataclass(frozen=True)
class Document:
    """The value of a YAML text or of a Python mapping, the lines of its keys, and its problems.

    A key with a problem is left out of `value`.
    """

    value: object
    lines: Mapping[KeyPath, int] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


def key_text(path: KeyPath) -> str:
    """Write a path as people do.

    >>> key_text(("rules", 0, "ranks"))
    'rules[0].ranks'
    """
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            word = part if part.isidentifier() else repr(part[:60])
            text += f".{word}" if text else word
    return text


def render(
    place: str,
    problems: Iterable[Problem],
    lines: Mapping[KeyPath, int] | None = None,
    options: Mapping[KeyPath, str] | None = None,
) -> str:
    """The message of a `RecipeError`: the count, then every problem in the order of the file.

    `lines` gives the line of a key in the file, `options` the option that a key's value came from.
    Only the first problem of each key is shown: later ones usually follow from it.
    """

    def line_of(problem: Problem) -> int | None:
        """The line of the key, or of the nearest key around it where it is missing."""
        around = (problem.path[:end] for end in range(len(problem.path), 0, -1))
        known = lines or {}
        return problem.line or next((known[path] for path in around if path in known), None)

    def entry(problem: Problem) -> str:
        label = (options or {}).get(problem.path) or key_text(problem.path)
        if line := line_of(problem):
            label = f"{label} (line {line})" if label else f"line {line}"
        message = problem.message.replace("\n", "\n" + " " * CURE_INDENT)
        return f"{label}: {message}" if label else message

    first: dict[KeyPath, Problem] = {}
    for problem in problems:
        first.setdefault(problem.path, problem)
    ordered = sorted(first.values(), key=lambda problem: line_of(problem) or 0)
    shown = [entry(problem) for problem in ordered[:MOST_SHOWN]]
    if len(ordered) > MOST_SHOWN:
        shown.append(f"and {len(ordered) - MOST_SHOWN} more.")
    return "\n  ".join([f"{place}: {counted(len(ordered), 'problem')}", *shown])
