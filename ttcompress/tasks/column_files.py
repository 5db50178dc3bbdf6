"""Reads files with named columns: CSV, Parquet, NumPy arrays.

`read_columns` gives the columns as they are in the file, `choose_columns` those with certain names,
`read_series` numbers. What kind a file is, its first bytes say.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from ttcompress.errors import InputError, RecipeError, unreadable
from ttcompress.system.extras import require_extra
from ttcompress.system.files import check_input
from ttcompress.system.text import clip, shape_text
from ttcompress.tasks.data_files import read_text

PARQUET = b"PAR1"
NUMPY = (b"PK\x03\x04", b"\x93NUM")
"""How archives of arrays and single arrays begin."""

LARGEST = 1e38
"""Of a value: models compute in float32."""

MAX_LISTED = 12

Columns = Mapping[str, Sequence[Any]]
"""By name: texts from a CSV, an array from other files; all of one length if chosen together."""


@dataclass(frozen=True, eq=False)
class Series:
    """Numbers in time order.

    Attributes:
        place: for messages: the task and the file.
        names: of the columns.
        values: (rows, columns), float64, at most `LARGEST`.
    """

    place: str
    names: tuple[str, ...]
    values: Tensor

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, part: slice) -> Self:
        return replace(self, values=self.values[part])


def read_series(task: str, path: str, names: Sequence[str] | None = None) -> Series:
    """Read columns of numbers; without `names` all that there are.

    Raises:
        InputError: no such file.
        MissingExtraError: it is a Parquet file, and pyarrow is not installed.
        RecipeError: a column is missing, or a value of it is no finite number.
    """
    place, columns = f"task {task}: {path}", read_columns(task, path)
    if names is None:
        names = [name for name, values in columns.items() if _begins_with_number(values)]
        if not names:
            raise RecipeError(
                f"{place}: none of its {len(columns)} columns ({list_names(columns)}) begins with "
                "a number. Give numbers with a decimal point, in columns between commas, "
                "semicolons or tabs."
            )
    chosen = choose_columns(columns, names, place)
    values = np.stack([_numbers(v, f"{place}: column {n}") for n, v in chosen.items()], 1)
    return Series(place, tuple(chosen), torch.from_numpy(values))


def choose_columns(columns: Columns, names: Iterable[str], place: str) -> Columns:
    """The columns with these names, in this order.

    Raises:
        RecipeError: one is missing, or they are not equally long.
    """
    chosen = {}
    for name in names:
        if name not in columns:
            raise RecipeError(
                f"{place}: has no column {name!r}; its {len(columns)} columns are "
                f"{list_names(columns)}. Give one of these."
            )
        chosen[name] = columns[name]
    lengths = {name: len(values) for name, values in chosen.items()}
    if len(set(lengths.values())) > 1:
        (one, few), (other, many) = (f(lengths.items(), key=lambda i: i[1]) for f in (min, max))
        raise RecipeError(
            f"{place}: {one} has {few} rows, but {other} has {many}. "
            "Choose columns of one series: `columns: [...]`."
        )
    return chosen


def read_columns(task: str, path: str) -> Columns:
    """Every column of a file.

    CSV: commas, semicolons or tabs; a first line of numbers alone is data, and the columns then
    have the names "0", "1", ... NumPy archives: a column for each array with one axis, and for each
    column of an array `x` with two axes, "x.0", "x.1", ...; a single array is "0", "1", ...

    Raises:
        InputError: no such file.
        MissingExtraError: it is a Parquet file, and pyarrow is not installed.
        RecipeError: it is none of these kinds, damaged, or has rows of several lengths.
        TTCompressError: it cannot be read.
    """
    place = f"task {task}: {path}"
    try:
        check_input(Path(path), "a file with data")
        with open(path, "rb") as file:
            magic = file.read(4)
    except InputError as error:
        raise error.at(f"task {task}") from error
    except OSError as error:
        raise unreadable(path, error).at(f"task {task}") from error
    if magic == PARQUET:
        return _read_parquet(path, place)
    if magic in NUMPY:
        return _read_arrays(path, place)
    return _read_csv(read_text(path, task), place)


def list_names(names: Iterable[str]) -> str:
    """Names for a message, not too many of them."""
    every = list(names)
    more = f" and {len(every) - MAX_LISTED} more" if len(every) > MAX_LISTED else ""
    return (", ".join(map(clip, every[:MAX_LISTED])) or "none") + more


def _read_csv(text: str, place: str) -> Columns:
    first = next(line for line in text.splitlines() if line.strip())
    delimiter = next((sign for sign in "\t;" if sign in first), ",")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[list[str]] = []
    try:
        for row in reader:
            if not row:
                continue
            if rows and len(row) != len(rows[0]):
                raise RecipeError(
                    f"{place}:{reader.line_num}: has {len(row)} columns, but the first line has "
                    f"{len(rows[0])}. Correct the line; a value with {delimiter!r} in it needs "
                    "quotes."
                )
            rows.append(row)
    except csv.Error as error:
        raise RecipeError(f"{place}:{reader.line_num}: is not CSV: {error}. Correct it.") from error
    names = [name.strip() for name in rows[0]]
    if all(map(_is_number, names)):
        names = list(map(str, range(len(names))))
    elif len(rows) == 1:
        raise RecipeError(
            f"{place}: has {len(names)} names in its first line, but 0 rows. Give a file with data."
        )
    else:
        del rows[0]
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise RecipeError(
            f"{place}: {names.count(repeated[0])} of its {len(names)} columns are called "
            f"{clip(repeated[0])!r}. Give each a name of its own."
        )
    return dict(zip(names, zip(*rows, strict=True), strict=True))


def _read_arrays(path: str, place: str) -> Columns:
    columns: dict[str, Any] = {}
    try:
        with open(path, "rb") as file:
            found = np.load(file, allow_pickle=False)
            arrays = {"": found} if isinstance(found, np.ndarray) else dict(found)
        if others := [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]:
            raise ValueError(f"{clip(others[0])} in it is another file")
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
        raise RecipeError(
            f"{place}: does not hold NumPy arrays: {error}. Write it with numpy.savez."
        ) from error
    for name, array in arrays.items():
        dot = "." if name else ""
        if array.ndim == 1:
            columns[name or "0"] = array
        elif array.ndim == 2:
            columns |= {f"{name}{dot}{k}": array[:, k] for k in range(array.shape[1])}
    if not columns:
        found = ", ".join(f"{clip(n)} ({shape_text(a.shape)})" for n, a in arrays.items())
        raise RecipeError(
            f"{place}: has no array of 1 or 2 axes, only {found or 'none'}. "
            "Write a series as (rows,) or (rows, columns)."
        )
    return columns


def _read_parquet(path: str, place: str) -> Columns:
    require_extra("parquet", ["pyarrow"], f"{place}: reading Parquet", "Or convert it to CSV.")
    import pyarrow  # an extra
    import pyarrow.parquet as parquet  # an extra

    try:
        table = parquet.ParquetFile(path).read()
    except (OSError, pyarrow.ArrowException) as error:
        raise RecipeError(f"{place}: is not a Parquet file: {error}. Write it again.") from error
    names = map(str, table.column_names)
    return {name: column.to_numpy() for name, column in zip(names, table.columns, strict=True)}


def _begins_with_number(values: Sequence[Any]) -> bool:
    """Whether a column is one of numbers, by its first row; dates and texts are not."""
    if isinstance(values, np.ndarray) and values.dtype != object:
        return values.dtype.kind in "biuf"
    return len(values) > 0 and _is_number(values[0])


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _numbers(values: Sequence[Any], place: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A column as float64.

    Raises:
        RecipeError: a value is empty, no number, NaN or infinite.
    """
    found = np.full(len(values), np.nan)
    if isinstance(values, np.ndarray) and values.dtype.kind in "biuf":
        found[:] = values
    else:
        for row, value in enumerate(values):
            if value is None or (isinstance(value, str) and not value.strip()):
                continue
            if not _is_number(value):
                raise RecipeError(
                    f"{place}: row {row + 1} is {clip(str(value))!r}, but numbers are needed. "
                    "Correct it, or leave the column out: `columns: [...]`."
                )
            found[row] = float(value)
    if broken := np.flatnonzero(~(np.abs(found) <= LARGEST)).tolist():
        raise RecipeError(
            f"{place}: {len(broken):,} of {len(found):,} values are missing, NaN or above "
            f"{LARGEST:g}, the first in row {broken[0] + 1}. Fill the gaps, or remove these rows."
        )
    return found
