"""The `Table` of text in which every result is shown.

`tabulate` makes one from values, given a function for the cells of each column.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from ttcompress.reporting.numbers import cell_text

T = TypeVar("T")


@dataclass(frozen=True)
class Column:
    """A column's heading; numbers are aligned to the `right`, and a `name` must not be broken.

    If all columns together are too wide, those with the highest `spare` are dropped first, and
    those with 0 never.
    """

    heading: str
    right: bool = False
    name: bool = False
    spare: int = 0


@dataclass(frozen=True)
class Table:
    """Columns, and rows of text with one cell for each."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]


def tabulate(items: Iterable[T], cells: Mapping[Column, Callable[[T], object]]) -> Table:
    """One row for each item, each cell written as `cell_text` writes it.

    >>> tabulate([1200, 7], {Column("n", right=True): lambda n: n, Column("half"): lambda n: n / 2})
    ... # doctest: +ELLIPSIS
    Table(columns=..., rows=(('1,200', '600'), ('7', '3.5')))
    """
    rows = (tuple(cell_text(cell(item)) for cell in cells.values()) for item in items)
    return Table(tuple(cells), tuple(rows))
