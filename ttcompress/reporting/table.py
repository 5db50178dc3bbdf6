"""A table of text, as every result is shown: columns, rows, and what may be left out."""

from __future__ import annotations

from dataclasses import dataclass


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
