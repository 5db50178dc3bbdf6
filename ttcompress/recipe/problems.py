"""Problems of a recipe come in, each with its key; one message that shows them all goes out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ttcompress.recipe.wording import counted

KeyPath = tuple[str | int, ...]
"""Where a value stands in a recipe: ("rules", 0, "ranks"). The recipe itself is ()."""

MOST_SHOWN = 20


@dataclass(frozen=True)
class Problem:
    """What is wrong at a key; the cure, if any, follows on lines of its own."""

    path: KeyPath
    message: str
    line: int | None = None


def key_text(path: KeyPath) -> str:
    """A path as people write it.

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
    lines: Mapping[KeyPath, int],
    options: Mapping[KeyPath, str],
) -> str:
    """The message of a `RecipeError`: the count, then every problem in the order of the file.

    `lines` gives the line of a key in the file, `options` the option that a key's value came from.
    One key has one problem: the first found is the cause of those that follow from it.
    """
    first: dict[KeyPath, Problem] = {}
    for problem in problems:
        first.setdefault(problem.path, problem)
    ordered = sorted(first.values(), key=lambda problem: _line(problem, lines) or 0)
    shown = [_entry(problem, lines, options) for problem in ordered[:MOST_SHOWN]]
    if len(ordered) > MOST_SHOWN:
        shown.append(f"and {len(ordered) - MOST_SHOWN} more.")
    return "\n  ".join([f"{place}: {counted(len(ordered), 'problem')}", *shown])


def _line(problem: Problem, lines: Mapping[KeyPath, int]) -> int | None:
    """The line of the key, or of the nearest key around it where it is missing."""
    if problem.line is not None:
        return problem.line
    around = (problem.path[:end] for end in range(len(problem.path), 0, -1))
    return next((lines[path] for path in around if path in lines), None)


def _entry(problem: Problem, lines: Mapping[KeyPath, int], options: Mapping[KeyPath, str]) -> str:
    line = _line(problem, lines)
    label = options.get(problem.path) or key_text(problem.path)
    if line is not None:
        label = f"{label} (line {line})" if label else f"line {line}"
    message = problem.message.replace("\n", "\n      ")
    return f"{label}: {message}" if label else message
