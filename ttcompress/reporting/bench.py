"""A benchmark as the report holds it enters; its table and remarks as text leave."""

from __future__ import annotations

from ttcompress.model.report import Json
from ttcompress.recipe.wording import counted
from ttcompress.reporting.table import Column, Table


def bench_tables(found: Json | None) -> tuple[Table, ...]:
    """One row for each way to run a layer with a batch; no table where nothing was timed."""
    if found is None:
        return ()
    columns = (
        Column("layer", name=True),
        Column("batch", right=True),
        Column("run", name=True),
        Column("ms", right=True),
        Column("quartiles", right=True, name=True, spare=1),
        Column("speed-up", right=True),
        Column("bytes", right=True),
    )
    return (Table(columns, tuple(map(_row, found["rows"]))),)


def bench_remarks(found: Json | None) -> tuple[str, ...]:
    """How it was measured, then what is fastest for each layer and batch, and why."""
    if found is None:
        return ()
    steps, threads = counted(found["steps"], "step"), counted(found["threads"], "thread")
    return (
        f"ms: {found['clock']} time of {steps} on {threads} of this machine; speed-up: over the "
        "fastest dense run with that batch, int8 included",
        *found["remarks"],
    )


def _row(row: Json) -> tuple[str, ...]:
    time = row["time"]
    return (
        row["part"],
        str(row["batch"]),
        row["run"],
        f"{time['median']:.3f}",
        f"{time['low']:.3f} {time['high']:.3f}",
        f"{row['speed_up']:.2f}x",
        f"{row['bytes']:,}",
    )
