"""A rule's modes and ranks come in; interior ranks go out, or what the two do not agree on.

Raises ValueError with the fact and the cure: what pydantic takes for a problem of the key it reads.
"""

from __future__ import annotations

from collections.abc import Sequence

from ttcompress.recipe.wording import counted


def check_modes(
    rows: Sequence[int] | None, columns: Sequence[int] | None, format: str | None
) -> None:
    """Refuse modes that no train of this format has; a format of None is not known yet."""
    if rows is None and columns is None:
        return
    if rows is None or columns is None:
        absent = "row_modes" if rows is None else "column_modes"
        raise ValueError(f"row_modes and column_modes stand together; {absent} is missing.")
    if format in ("auto", "dense", "keep"):
        raise ValueError(
            f"modes belong to a train, and the format here is {format}."
            "\nWrite `format: mps` or `format: mpo` in this rule, or take the modes out."
        )
    if format == "mpo" and len(rows) != len(columns):
        raise ValueError(
            f"an mpo pairs its modes, but there are {counted(len(rows), 'row mode')} and"
            f" {counted(len(columns), 'column mode')}: {list(rows)} and {list(columns)}."
            "\nGive as many of one as of the other; a mode may be 1."
        )
    if format == "mps" and any(1 in modes and len(modes) > 1 for modes in (rows, columns)):
        raise ValueError(
            f"a mode of 1 makes an mps longer and no smaller: {list(rows)} and {list(columns)}."
            " Take it out."
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
    """
    if rows is None or columns is None:
        raise ValueError(
            f"the ranks {list(ranks)} need row_modes and column_modes beside them: they lie between"
            " modes.\nOr give one number: a cap on every rank."
        )
    if format not in ("mps", "mpo"):
        return ranks
    cores = len(rows) + len(columns) if format == "mps" else len(rows)
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
