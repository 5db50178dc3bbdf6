"""Finds the vocabulary and the labels of a model, in its checkpoint or in a user's file.

Both are tables from symbols to indices, in one of many layouts: `tables_in` lists everything that
looks like one, and `find_vocabulary` and `find_labels` choose the one that fits the model.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ttcompress.errors import RecipeError
from ttcompress.samples.corpus import UNKNOWN
from ttcompress.system.json import read_json
from ttcompress.tasks.data_files import read_text

Indices = dict[str, int]

TOKENS = ("characters", "words")

UNKNOWN_NAMES = ("<unk>", "[unk]", "unk", "<unknown>", "unknown", "<oov>", "[oov]", UNKNOWN)
"""Names that vocabularies use for the entry for everything else; case does not matter."""

MOSTLY_UNKNOWN = 0.5
ALPHABET = 16
"""A string of at least this many characters, all different, is not a word but a list of them."""

# `label2id`, `tag_to_ix`, `classes`; no `stage`, `classifier`.
_LABELS = re.compile(r"(?<![a-z])(label|tag|class(?!ifier)|categor|target_name)", re.I)


@dataclass(frozen=True)
class Vocabulary:
    """Symbols and their indices; `unknown` is the index for every other symbol, if there is one."""

    indices: Mapping[str, int]
    unknown: int | None

    @property
    def is_of_characters(self) -> bool:
        """Whether most entries are single characters; `<unk>` and the like are not."""
        return 2 * sum(len(symbol) == 1 for symbol in self.indices) > len(self.indices)

    def encode(self, symbols: Sequence[str], place: str) -> list[int]:
        """The index of each symbol.

        Raises:
            RecipeError: a symbol is missing and there is no entry for it, or most are missing.
        """
        unknown = -1 if self.unknown is None else self.unknown  # then no symbol may be missing
        missing = [symbol for symbol in symbols if symbol not in self.indices]
        shown = ", ".join(repr(symbol) for symbol in sorted(set(missing))[:5])
        share = f"{len(missing):,} of {len(symbols):,} symbols are not in the vocabulary ({shown})"
        if missing and self.unknown is None:
            raise RecipeError(
                f"{place}: {share}, which has no entry such as <unk> for them. "
                "Remove them from the data, or name the entry: `unknown: SYMBOL`."
            )
        if len(missing) > MOSTLY_UNKNOWN * len(symbols):
            raise RecipeError(
                f"{place}: {share}, so this is not the kind of data that the model reads. "
                "Give other data, or the right vocabulary: `vocabulary: FILE`, `tokens: words`."
            )
        return [self.indices.get(symbol, unknown) for symbol in symbols]


def find_vocabulary(
    content: Any, size: int, task: str, file: str | None = None, unknown: str | None = None
) -> Vocabulary:
    """The vocabulary of a model that takes `size` symbols.

    Args:
        content: what the checkpoint holds besides tensors; searched if there is no `file`.
        size: how many symbols the model takes; a table of this size is preferred to a smaller one.
        task: for messages.
        file: JSON as in a checkpoint, or text with one symbol on each line.
        unknown: the entry that stands for symbols outside the vocabulary.

    Raises:
        InputError: the file is missing.
        RecipeError: no table fits, several do, or `unknown` is not in it.
    """
    place = file or "the checkpoint"
    tables = dict(tables_in(_read(Path(file), task) if file else content))
    if not file:
        tables = {where: table for where, table in tables.items() if not _LABELS.search(where)}
    indices = _only(tables, size, f"task {task}: {place}", "vocabulary", "vocabulary: FILE")
    if unknown is not None and unknown not in indices:
        raise RecipeError(
            f"task {task}: unknown: {unknown!r} is not among the {len(indices)} symbols of the "
            f"vocabulary in {place}. Give one of its entries."
        )
    entry = unknown or next((s for s in indices if s.casefold() in UNKNOWN_NAMES), None)
    return Vocabulary(indices, None if entry is None else indices[entry])


def find_labels(content: Any, classes: int, task: str, given: Any = None) -> Indices:
    """The labels of a model with that many classes; their numbers if it has none.

    Args:
        content: what the checkpoint holds besides tensors; searched if none are `given`.
        classes: how many there must be.
        task: for messages.
        given: a list, a mapping from label to index, or the path of a file as for vocabularies.

    Raises:
        InputError: the file is missing.
        RecipeError: there are more or fewer, or several tables fit.
    """
    if given is None:
        tables = {w: table for w, table in tables_in(content) if _LABELS.search(w)}
        if not tables:
            return {str(index): index for index in range(classes)}
        return _only(tables, classes, f"task {task}: the checkpoint", "labels", "labels: [A, B]")
    value = _read(Path(given), task) if isinstance(given, str) else given
    tables = dict(tables_in(value, "labels"))
    return _only(tables, classes, f"task {task}: labels", "labels", "labels: [A, B]")


def tables_in(value: Any, place: str = "") -> Iterator[tuple[str, Indices]]:
    """Every table in nested content, by its place.

    Example:
        >>> dict(tables_in({"vocab": {"itos": ["a", "b"]}, "epoch": 3}))
        {'vocab.itos': {'a': 0, 'b': 1}}
    """
    if (table := _as_indices(value)) is not None:
        yield place, table
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from tables_in(item, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list | tuple):
        for k, item in enumerate(value):
            yield from tables_in(item, f"{place}[{k}]")


def _as_indices(value: Any) -> Indices | None:
    """Read a mapping in either direction, a list of symbols, or a string of characters."""
    if isinstance(value, Mapping) and value:
        if all(isinstance(k, str) and _is_index(v) for k, v in value.items()):
            return _distinct(dict(value))
        if all(_is_index(k) and isinstance(v, str) for k, v in value.items()):
            return _distinct({symbol: index for index, symbol in value.items()}, len(value))
    least = ALPHABET if isinstance(value, str) else 1
    if (
        isinstance(value, list | tuple | str)
        and len(value) >= least
        and all(isinstance(symbol, str) for symbol in value)
    ):
        return _distinct({symbol: k for k, symbol in enumerate(value)}, len(value))
    return None


def _is_index(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _distinct(indices: Indices, wanted: int | None = None) -> Indices | None:
    """None if an index or symbol repeats or most indices are missing, as in sizes or counts."""
    unique = len(set(indices.values())) == len(indices) == (wanted or len(indices))
    return indices if unique and max(indices.values()) < 2 * len(indices) else None


def _only(tables: Mapping[str, Indices], size: int, place: str, what: str, cure: str) -> Indices:
    """The one table of `size` entries, or the largest smaller one: an embedding may be padded."""
    fitting = {
        where: table
        for where, table in tables.items()
        if max(table.values()) < size and 2 * len(table) >= size
    }
    largest = max(map(len, fitting.values()), default=0)
    best = {where: table for where, table in fitting.items() if len(table) == largest}
    distinct = [table for k, table in enumerate(best.values()) if table not in [*best.values()][:k]]
    if len(distinct) == 1:
        return distinct[0]
    if distinct:
        raise RecipeError(
            f"{place}: {len(distinct)} tables could be the {what} of {size} entries: "
            f"{', '.join(best)}. Choose one with `{cure}`."
        )
    seen = ", ".join(f"{where or 'it'} with {len(t)}" for where, t in tables.items()) or "none"
    raise RecipeError(
        f"{place}: the {what} must have {size} entries, as the model does; found {seen}. "
        f"Give it with `{cure}`."
    )


def _read(path: Path, task: str) -> Any:
    """A JSON document, or the lines of a text."""
    text = read_text(path, task)
    if path.suffix == ".json" or text.lstrip()[:1] in "{[":
        try:
            return read_json(text.encode())
        except ValueError as error:
            if path.suffix == ".json":
                raise RecipeError(
                    f"task {task}: {path}: is not JSON: {error}. Correct it."
                ) from error
    return text.removesuffix("\n").split("\n")
