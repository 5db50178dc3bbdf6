"""Checks that a rule's modes and ranks fit its format and each other.

Each raises ValueError with the fact and the cure, which pydantic takes for a problem of the key it
reads. What a format itself asks of its modes is in `ttcompress.planning.formats`.
"""

from __future__ import annotations

from collections.abc import Sequence

from ttcompress.planning.formats import AUTO, FORMATS, KEEP, decomposing
from ttcompress.recipe.wording import counted


def check_modes(
    rows: Sequence[int] | None, columns: Sequence[int] | None, format: str | None
) -> None:
    """Refuse modes that the format cannot have; of an unknown format another check tells.

    Raises:
        ValueError: with the fact and the cure.
    """
    if rows is None and columns is None:
        return
    if rows is None or columns is None:
        absent = "row_modes" if rows is None else "column_modes"
        raise ValueError(f"row_modes and column_modes stand together; {absent} is missing.")
    if format in decomposing():
        FORMATS[format].check_modes(rows, columns)
    elif format in (*FORMATS, AUTO, KEEP):
        written = " or ".join(f"`format: {name}`" for name in decomposing())
        raise ValueError(
            f"modes belong to a train, and the format here is {format}."
            f"\nWrite {written} in this rule, or take the modes out."
        )


def interior_ranks(
    ranks: tuple[int, ...],
    rows: Sequence[int] | None,
    columns: Sequence[int] | None,
    format: str | None,
) -> tuple[int, ...]:
    """The n - 1 interior ranks of n cores, from those or from n + 1 with outer ones of 1.

    >>> interior_ranks((1, 8, 24, 1), (4, 8), (16,), "mps")
    (8, 24)

    Raises:
        ValueError: with the fact and the cure.
    """
    if rows is None or columns is None:
        raise ValueError(
            f"the ranks {list(ranks)} need row_modes and column_modes beside them: they lie between"
            " modes.\nOr give one number: a cap on every rank."
        )
    if format not in decomposing():
        return ranks
    cores = FORMATS[format](tuple(rows), tuple(columns)).cores
    if len(ranks) == cores + 1:
        if (ranks[0], ranks[-1]) != (1, 1):
            raise ValueError(
                f"with {cores + 1} ranks for {counted(cores, 'core')} the outer ones are included,"
                f" and they are always 1, not {ranks[0]} and {ranks[-1]}: {list(ranks)}."
            )
        return ranks[1:-1]
    if len(ranks) != cores - 1:
        modes = f"{counted(len(rows), 'row mode')} and {counted(len(columns), 'column mode')}"
        raise ValueError(
            f"an {format} with {modes} has {counted(cores, 'core')} and needs"
            f" {counted(cores - 1, 'rank')}, got {len(ranks)}: {list(ranks)}."
            "\nA train of n cores has n - 1 ranks; the outer ones are always 1."
        )
    return ranks
