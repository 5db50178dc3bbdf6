"""Reads YAML text into plain values with the line of every key: `read_yaml`.

YAML 1.1 has traps that a recipe must not fall into: a repeated key silently wins, `on:` is a
boolean, `010` is eight, and a few aliases can stand for billions of values. Each is reported.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from ttcompress.recipe.problems import MOST_CHARACTERS, Document, KeyPath, Problem
from ttcompress.system.text import find_half_surrogate

MOST_ALIASES = 16
"""More than a recipe needs, and too few to multiply into anything large."""

_PLAIN_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9_]*)")
_COLLECTION_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with a bound on aliases."""

    aliases = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            self.aliases += 1
            if self.aliases > MOST_ALIASES:
                mark = parent.start_mark if parent else None
                raise yaml.MarkedYAMLError(
                    problem=f"more than {MOST_ALIASES} aliases", problem_mark=mark
                )
        return super().compose_node(parent, index)


def read_yaml(text: str, kind: str = "recipe") -> Document:
    """Read one document of plain values. Never raises: errors are in its `problems`.

    `kind` is what those call the document.
    """
    if len(text) > MOST_CHARACTERS:
        fact = f"{len(text):,} characters, but a {kind} may have at most {MOST_CHARACTERS:,}."
        return Document(None, problems=(Problem((), fact),))
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        walk = _Walk(loader, kind)
        value = walk.value(root, ()) if root else None
    except yaml.YAMLError as error:
        return Document(None, problems=(_syntax_problem(error),))
    except RecursionError:
        return Document(None, problems=(Problem((), "nested too deeply."),))
    return Document(value, walk.lines, tuple(walk.problems))


def _syntax_problem(error: yaml.YAMLError) -> Problem:
    """PyYAML's own words with the line, and the cure for the commonest cause."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return Problem((), f"not YAML: {' '.join(str(error).split())[:200]}.")
    cure = "\nYAML indents with spaces, never with tabs." if r"'\t'" in str(error.problem) else ""
    return Problem((), f"not YAML: {error.problem}.{cure}", line=error.problem_mark.line + 1)


class _Walk:
    """From nodes to values, collecting lines and problems."""

    def __init__(self, loader: _Loader, kind: str) -> None:
        self.loader, self.kind = loader, kind
        self.lines: dict[KeyPath, int] = {}
        self.problems: list[Problem] = []

    def value(self, node: yaml.Node, path: KeyPath) -> object:
        """The plain value of a node; records the line of everything in it."""
        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if node.tag not in _COLLECTION_TAGS:
            self._problem(path, node, f"the YAML tag {node.tag!r} has no meaning in a {self.kind}.")
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, k)) for k, item in enumerate(node.value)]
        return self._mapping(node, path)

    def _mapping(self, node: yaml.Node, path: KeyPath) -> dict[str, object]:
        result: dict[str, object] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node, path)
            if key is None:
                continue
            here = (*path, key)
            if here in self.lines:
                fact = f"written twice; the first is on line {self.lines[here]}."
                self._problem(here, key_node, f"{fact} Keep one.")
                continue
            self.lines[here] = key_node.start_mark.line + 1
            value = self.value(value_node, here)
            if value is None:
                self._problem(here, key_node, "has no value. Give it one, or remove the key.")
            else:
                result[key] = value
        return result

    def _key(self, node: yaml.Node, path: KeyPath) -> str | None:
        """A key that is text; anything else is a problem, above all a bare `on:`."""
        if not isinstance(node, yaml.ScalarNode):
            self._problem((*path, "?"), node, "a key must be one word.")
            return None
        if node.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"):
            type_ = node.tag.rpartition(":")[2]
            fact = f"YAML 1.1 reads this key as a {type_}, but every key of a {self.kind} is text."
            self._problem((*path, node.value), node, fact)
            return None
        if find_half_surrogate(node.value) is not None:
            self._problem((*path, "?"), node, "the key contains half of a surrogate pair.")
            return None
        return str(node.value)

    def _scalar(self, node: yaml.ScalarNode, path: KeyPath) -> object:
        try:
            value: Any = self.loader.construct_object(node)
        except ValueError as error:  # a date with 13 months, a number of thousands of digits
            self._problem(path, node, f"not a value: {str(error)[:100]}.")
            return "?"
        if isinstance(value, str) and find_half_surrogate(value) is not None:
            self._problem(
                path,
                node,
                "not text: it contains half of a surrogate pair. Write the character itself.",
            )
            return "?"
        is_integer = isinstance(value, int) and not isinstance(value, bool)
        if is_integer and abs(value) >= 2**63:
            self._problem(path, node, "too large: whole numbers have at most 18 digits.")
            return "?"
        if is_integer and not _PLAIN_INTEGER.fullmatch(node.value):
            fact = f"YAML 1.1 reads {node.value} as {value}; write the number you mean."
            self._problem(path, node, fact)
        return value

    def _problem(self, path: KeyPath, node: yaml.Node, message: str) -> None:
        self.problems.append(Problem(path, message, line=node.start_mark.line + 1))
