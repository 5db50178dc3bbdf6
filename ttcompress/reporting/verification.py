"""Shows a verification: one row a weight, what differs, and the verdict."""

from __future__ import annotations

from ttcompress.recipe.wording import counted
from ttcompress.reporting.table import Column, Table
from ttcompress.results.verification import CheckedWeight, Verification


def verification_table(found: Verification) -> Table:
    """One row for each weight that was checked."""
    columns = (
        Column("weight", name=True),
        Column("error reported", right=True),
        Column("computed again", right=True),
        Column("agrees"),
    )
    return Table(columns, tuple(map(_row, found.weights)))


def verification_remarks(found: Verification) -> tuple[str, ...]:
    """What was checked besides, what differs, and the verdict."""
    compared = f"{found.kept} kept tensors compared bit for bit"
    if not found.kept:
        compared = "no kept tensor compared: they were trained, or there are none"
    beside = f"{compared}; the source is the model given"
    count = counted(len(found.differences), "difference")
    verdict = "verified" if found.agrees else f"NOT VERIFIED: {count}"
    return (beside, *found.differences, verdict)


def _row(weight: CheckedWeight) -> tuple[str, ...]:
    figures = (f"{weight.reported:.9g}", f"{weight.recomputed:.9g}")
    return (weight.name, *figures, "yes" if weight.agrees else "NO")
