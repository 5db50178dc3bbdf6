"""Shows a benchmark, given as JSON as in a report: a table, and what is fastest and why."""

from __future__ import annotations

from collections.abc import Mapping

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


Latencies = Mapping[str, Mapping[int, float]]
"""Milliseconds by the way to run and by batch size."""


def dense_and_compressed(found: Json | None) -> dict[str, tuple[Latencies, Latencies]]:
    """The milliseconds of every layer, of its dense ways to run and of the compressed ones."""
    times: dict[str, tuple[dict[str, dict[int, float]], dict[str, dict[int, float]]]] = {}
    for row in found["rows"] if found else ():
        ways = times.setdefault(row["part"], ({}, {}))[row["run"] in SMALL]
        ways.setdefault(row["run"], {})[row["batch"]] = row["time"]["median"]
    return dict(times)


def speed_text(found: Json) -> str:
    """How much faster the fastest compressed run is than the fastest dense one, over all cases.

    >>> row = {"part": "lstm", "batch": 1, "run": "c", "speed_up": 2.0}
    >>> speed_text({"rows": [row, row | {"batch": 8, "speed_up": 0.8}]})
    '1.2x slower to 2.0x faster here'
    """
    best = dict[tuple[str, int], float]()
    for row in found["rows"]:
        if row["run"] in SMALL:
            case = row["part"], row["batch"]
            best[case] = max(row["speed_up"], best.get(case, 0.0))

    low, high = min(best.values()), max(best.values())
    ends = [f"{max(one, 1 / one):.1f}x" for one in (low, high)]
    if low < 1 <= high:
        return f"{ends[0]} slower to {ends[1]} faster here"
    return f"{' to '.join(dict.fromkeys(ends))} {'slower' if low < 1 else 'faster'} here"
