"""Reads files of labelled sequences.

Two layouts: lines with columns (the token or text first, the label last), and JSON lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from ttcompress.errors import RecipeError
from ttcompress.system.json import read_json
from ttcompress.tasks.data_files import read_text

DOCUMENT_START = "-DOCSTART-"
"""CoNLL 2003 separates documents by a line with this token."""


@dataclass(frozen=True)
class Example:
    """A sequence of tokens; a label for each, or one for all."""

    tokens: tuple[str, ...]
    labels: tuple[str, ...]


def read_tagged(task: str, path: str) -> list[Example]:
    """A label for each token.

    Columns: a token a line, the label in the last column, an empty line between sequences. JSON
    lines: `{"tokens": ["a", "b"], "labels": ["X", "Y"]}`; a string of tokens is one of characters.

    Raises:
        InputError: no such file.
        RecipeError: a line is of another layout, or a sequence has more tokens than labels.
    """
    lines, place = read_text(path, task).split("\n"), f"task {task}: {path}"
    if not _is_json(lines):
        return list(_sentences(lines, place))
    examples = []
    for where, record in _records(lines, place):
        tokens, labels = (_field(record, where, name) for name in ("tokens", "labels"))
        if not isinstance(tokens, list | str) or not isinstance(labels, list):
            raise RecipeError(f'{where}: write lists: {{"tokens": ["a"], "labels": ["X"]}}.')
        if len(tokens) != len(labels) or not tokens:
            raise RecipeError(
                f"{where}: {len(tokens)} tokens and {len(labels)} labels. Give a label for each "
                "token."
            )
        examples.append(Example(tuple(map(str, tokens)), tuple(map(str, labels))))
    return examples


def read_classified(task: str, tokens_of: Callable[[str], list[str]], path: str) -> list[Example]:
    """A label for each sequence.

    Columns: a text, a tab, its label. JSON lines: `{"text": "a b", "label": "X"}`, or `tokens` in
    place of `text` where they were cut before. `tokens_of` cuts a text.

    Raises:
        InputError: no such file.
        RecipeError: a line is of another layout, or has no tokens.
    """
    lines, place = read_text(path, task).split("\n"), f"task {task}: {path}"
    examples = []
    for where, record in (_records if _is_json(lines) else _tab_rows)(lines, place):
        given = record["tokens"] if "tokens" in record else _field(record, where, "text")
        if not isinstance(given, str | list):
            raise RecipeError(
                f'{where}: write {{"text": "a b", "label": "X"}}, or a list of tokens.'
            )
        tokens = tokens_of(given) if isinstance(given, str) else list(map(str, given))
        if not tokens:
            raise RecipeError(f"{where}: 0 tokens, and 1 is the least. Take the line out.")
        examples.append(Example(tuple(tokens), (str(_field(record, where, "label")),)))
    return examples


def _is_json(lines: Iterable[str]) -> bool:
    first = next(line for line in lines if line.strip())
    return first.lstrip().startswith("{") and first.rstrip().endswith("}")


def _records(lines: Iterable[str], place: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{place}:{number}"
        try:
            record = read_json(line.encode())
        except ValueError as error:
            raise RecipeError(f"{where}: is not JSON: {error}. Write an object a line.") from error
        if not isinstance(record, dict):
            raise RecipeError(f"{where}: is no JSON object. Write an object on each line.")
        yield where, record


def _field(record: Mapping[str, Any], where: str, name: str) -> Any:
    if name not in record:
        raise RecipeError(
            f"{where}: has no `{name}`, only {', '.join(record) or 'nothing'}. Rename the fields."
        )
    return record[name]


def _tab_rows(lines: Iterable[str], place: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        text, tab, label = line.rpartition("\t")
        if not tab:
            raise RecipeError(
                f"{place}:{number}: has 1 column, and 2 are needed. Write a text, a tab, its label."
            )
        yield f"{place}:{number}", {"text": text, "label": label.strip()}


def _sentences(lines: Iterable[str], place: str) -> Iterator[Example]:
    """Runs of lines that are not blank, cut into columns by tabs if there are any, or by spaces."""
    for blank, run in groupby(enumerate(lines, 1), lambda line: not line[1].strip()):
        rows = []
        for number, line in () if blank else run:
            columns = line.split("\t") if "\t" in line else line.split()
            if len(columns) < 2:
                raise RecipeError(
                    f"{place}:{number}: has 1 column, and 2 are needed. Write a token first and "
                    "its label last, with an empty line between sequences."
                )
            columns = [column.strip() or column for column in columns]
            if columns[0] != DOCUMENT_START:
                rows.append(columns)
        if rows:
            yield Example(tuple(row[0] for row in rows), tuple(row[-1] for row in rows))
