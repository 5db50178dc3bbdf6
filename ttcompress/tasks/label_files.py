"""Reads files of labelled sequences: lines of columns, JSON lines, or columns with names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from ttcompress.errors import RecipeError
from ttcompress.system.json import read_json
from ttcompress.tasks.column_files import choose_columns, read_columns
from ttcompress.tasks.data_files import read_text

DOCUMENT_START = "-DOCSTART-"
"""The token on the lines that separate documents in CoNLL 2003."""


@dataclass(frozen=True)
class Example:
    """A sequence of tokens, with a label for each or one for the sequence."""

    tokens: tuple[str, ...]
    labels: tuple[str, ...]


def read_tagged(task: str, label_column: int | None, path: str) -> list[Example]:
    """Read sequences with a label for each token.

    Columns: one token on each line, its label in the last column, or in the column of that number,
    counted from 1; an empty line between sequences.
    JSON lines: `{"tokens": ["a", "b"], "labels": ["X", "Y"]}`; each character of a string is one.

    Raises:
        InputError: no such file.
        RecipeError: a line has another layout, or a sequence has more tokens than labels.
    """
    lines, place = read_text(path, task).split("\n"), f"task {task}: {path}"
    if not _is_json(lines):
        return list(_sentences(lines, place, label_column))
    examples = []
    for where, record in _records(lines, place):
        tokens, labels = (_field(record, where, name) for name in ("tokens", "labels"))
        if not isinstance(tokens, list | str) or not isinstance(labels, list):
            raise RecipeError(
                f'{where}: expected two lists, as in {{"tokens": ["a"], "labels": ["X"]}}.'
            )
        if len(tokens) != len(labels) or not tokens:
            raise RecipeError(
                f"{where}: expected at least 1 token and a label for each, got {len(tokens)} "
                f"tokens and {len(labels)} labels."
            )
        examples.append(Example(tuple(map(str, tokens)), tuple(map(str, labels))))
    return examples


def read_classified(
    task: str, tokens_of: Callable[[str], list[str]], columns: tuple[str, str] | None, path: str
) -> list[Example]:
    """Read sequences with one label each.

    Columns: a text, a tab, its label. JSON lines: `{"text": "a b", "label": "X"}`, or `tokens`
    instead of `text` if it is already split. With the names of two `columns`, of the texts and of
    their labels: what `read_columns` reads. `tokens_of` splits a text.

    Raises:
        InputError: no such file.
        MissingExtraError: it is a Parquet file, and pyarrow is not installed.
        RecipeError: a line has another layout, or no tokens; or a column is missing.
    """
    place = f"task {task}: {path}"
    if columns is not None:
        records = _named_rows(task, path, columns, place)
    else:
        lines = read_text(path, task).split("\n")
        records = (_records if _is_json(lines) else _tab_rows)(lines, place)
    examples = []
    for where, record in records:
        given = record["tokens"] if "tokens" in record else _field(record, where, "text")
        if not isinstance(given, str | list):
            raise RecipeError(
                f'{where}: expected {{"text": "a b", "label": "X"}}, or a list of tokens.'
            )
        tokens = tokens_of(given) if isinstance(given, str) else list(map(str, given))
        if not tokens:
            raise RecipeError(f"{where}: has 0 tokens, but at least 1 is needed. Remove the line.")
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
            raise RecipeError(
                f"{where}: is not JSON: {error}. Write one object on each line."
            ) from error
        if not isinstance(record, dict):
            raise RecipeError(f"{where}: is not a JSON object. Write one object on each line.")
        yield where, record


def _field(record: Mapping[str, Any], where: str, name: str) -> Any:
    if name not in record:
        raise RecipeError(
            f"{where}: has no field `{name}`, only {', '.join(record) or 'none'}. Rename them."
        )
    return record[name]


def _tab_rows(lines: Iterable[str], place: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        text, tab, label = line.rpartition("\t")
        if not tab:
            raise RecipeError(
                f"{place}:{number}: has 1 column, but 2 are needed. "
                "Write a text, a tab and its label."
            )
        yield f"{place}:{number}", {"text": text, "label": label.strip()}


def _named_rows(
    task: str, path: str, columns: tuple[str, str], place: str
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    chosen = choose_columns(read_columns(task, path), columns, place)
    for row, values in enumerate(zip(*chosen.values(), strict=True), 1):
        text, label = ("" if value is None else str(value) for value in values)
        yield f"{place}: row {row}", {"text": text, "label": label.strip()}


def _sentences(lines: Iterable[str], place: str, label_column: int | None) -> Iterator[Example]:
    """Runs of lines that are not blank, cut into columns by tabs if there are any, or by spaces."""
    for blank, run in groupby(enumerate(lines, 1), lambda line: not line[1].strip()):
        rows = []
        for number, line in () if blank else run:
            columns = line.split("\t") if "\t" in line else line.split()
            if len(columns) < (label_column or 2):
                raise RecipeError(
                    f"{place}:{number}: has {len(columns)} column{'s' * (len(columns) > 1)}, but "
                    f"{label_column or 2} are needed. Write a token first and its label "
                    f"{f'in column {label_column}' if label_column else 'last'}, with an empty "
                    "line between sequences."
                )
            columns = [column.strip() or column for column in columns]
            if columns[0] != DOCUMENT_START:
                rows.append(columns)
        if rows:
            at = -1 if label_column is None else label_column - 1
            yield Example(tuple(row[0] for row in rows), tuple(row[at] for row in rows))
