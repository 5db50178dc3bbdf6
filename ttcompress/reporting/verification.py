"""Shows a verification: a table of the weights, the differences, and the verdict."""

from __future__ import annotations

from ttcompress.recipe.wording import counted
from ttcompress.reporting.numbers import error_text
from ttcompress.reporting.table import Column, Table, tabulate
from ttcompress.results.verification import Verification


def verification_table(found: Verification) -> Table:
    """One row for each weight that was checked."""
    return tabulate(
        found.weights,
        {
            Column("weight", name=True): lambda one: one.name,
            Column("error reported", right=True): lambda one: f"{one.reported:.9g}",
            Column("recomputed", right=True): lambda one: f"{one.recomputed:.9g}",
            Column("worst row", right=True, spare=1): lambda one: error_text(
                one.worst_row_recomputed
            ),
            Column("agrees"): lambda one: "yes" if one.agrees else "NO",
        },
    )


def verification_remarks(found: Verification) -> tuple[str, ...]:
    """What else was checked, the differences, and the verdict."""
    compared = f"{found.kept} kept tensors compared bit for bit"
    if not found.kept:
        compared = "no kept tensors compared: they were trained, or there are none"
    count = counted(len(found.differences), "difference")
    verdict = "verified" if found.agrees else f"NOT VERIFIED: {count}"
    return (f"{compared}; the given model is the source", *found.differences, verdict)
