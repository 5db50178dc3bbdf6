"""A benchmark enters; its table as text leaves."""

from __future__ import annotations

from ttcompress.bench.model import Benchmark
from ttcompress.report.tables import Column, Table


def bench_table(found: Benchmark) -> Table:
    """One row for each way to run a layer with a batch."""
    columns = (
        Column("layer", name=True),
        Column("batch", right=True),
        Column("run", name=True),
        Column("ms", right=True),
        Column("quartiles", right=True, name=True, spare=1),
        Column("speed-up", right=True),
        Column("bytes", right=True),
    )
    return Table(
        columns,
        tuple(
            (
                row.part,
                str(row.batch),
                row.run,
                f"{row.time.median:.3f}",
                f"{row.time.low:.3f} {row.time.high:.3f}",
                f"{row.speed_up:.2f}x",
                f"{row.bytes:,}",
            )
            for row in found.rows
        ),
    )
