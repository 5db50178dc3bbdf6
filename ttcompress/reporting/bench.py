"""Shows a benchmark, given as JSON as in a report: a table, and what is fastest and why."""

from __future__ import annotations

from ttcompress.model.report import Json
from ttcompress.recipe.wording import counted
from ttcompress.reporting.table import Column, Table, tabulate
from ttcompress.results.benchmark import SMALL


def bench_tables(found: Json | None) -> tuple[Table, ...]:
    """One row for each layer, batch and way to run; no table if nothing was timed."""
    if found is None:
        return ()
    cells = {
        Column("layer", name=True): lambda row: row["part"],
        Column("batch", right=True): lambda row: str(row["batch"]),
        Column("run", name=True): lambda row: row["run"],
        Column("ms", right=True): lambda row: f"{row['time']['median']:.3f}",
        Column("quartiles", right=True, name=True, spare=1): lambda row: (
            f"{row['time']['low']:.3f} {row['time']['high']:.3f}"
        ),
        Column("speed-up", right=True): lambda row: f"{row['speed_up']:.2f}x",
        Column("bytes", right=True): lambda row: row["bytes"],
    }
    return (tabulate(found["rows"], cells),)


def bench_remarks(found: Json | None) -> tuple[str, ...]:
    """How the times were measured, then what is fastest for each layer and batch, and why."""
    if found is None:
        return ()
    steps, threads = counted(found["steps"], "step"), counted(found["threads"], "thread")
    return (
        f"ms: {found['clock']} time of {steps} on {threads} of this machine; speed-up: over the "
        "fastest dense run at the same batch size, int8 included",
        *found["remarks"],
    )


def speed_text(found: Json) -> str:
    """How much faster the fastest compressed run is than the fastest dense one, over all cases.

    >>> row = {"part": "lstm", "batch": 1, "run": "c", "speed_up": 2.0}
    >>> speed_text({"rows": [row, row | {"batch": 8, "speed_up": 0.8}]})
    '1.2x slower to 2.0x faster here'
    """
    best: dict[tuple[str, int], float] = {}
    for row in found["rows"]:
        if row["run"] in SMALL:
            case = row["part"], row["batch"]
            best[case] = max(row["speed_up"], best.get(case, 0.0))

    def times(speed_up: float) -> str:
        return f"{speed_up:.1f}x faster" if speed_up >= 1 else f"{1 / speed_up:.1f}x slower"

    ends = dict.fromkeys(map(times, (min(best.values()), max(best.values()))))
    return f"{' to '.join(ends)} here"
