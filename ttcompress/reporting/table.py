"""A table of text, the form in which every result is shown: columns, rows, what may be left out.

`tabulate` makes one from values: a column's heading, and the function that gives its cell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from ttcompress.reporting.numbers import cell_text

T = TypeVar("T")


@dataclass(frozen=True)
class Column:
    """A column's heading; numbers stand at the right, and a name is not to be broken.

    Where all columns together are too wide, those with the highest `spare` are left out first, and
    those with 0 never.
    """

    heading: str
    right: bool = False
    name: bool = False
    spare: int = 0


@dataclass(frozen=True)
class Table:
    """A table of text."""

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
