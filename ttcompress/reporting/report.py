"""Shows the report of a compression or a plan: tables, and remarks below them.

The console, Markdown and the HTML page all draw these tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import starmap
from typing import NamedTuple

from ttcompress.model.report import (
    BaseReport,
    Change,
    PlanReport,
    Report,
    Totals,
    Verdict,
    WeightReport,
)
from ttcompress.model.weights import NO_WEIGHT
from ttcompress.planning.formats import KEEP
from ttcompress.recipe.wording import counted
from ttcompress.reporting.bench import bench_remarks, bench_tables
from ttcompress.reporting.budget import answers
from ttcompress.reporting.conclusion import conclude, next_step
from ttcompress.reporting.left_out import left_out_remarks
from ttcompress.reporting.losses import large_remarks, loss_remarks, lost_remarks
from ttcompress.reporting.numbers import error_text, limit_figure, modes_text, times_text
from ttcompress.reporting.table import Column, Table, tabulate
from ttcompress.stores.coded import CODED

EXPECTED_SIZES = (
    "sizes are estimates under a tolerance: decompose measures the rounding error, "
    "and spends more ranks or bits where it is too large"
)
ESTIMATED_BYTES = (
    "bytes of coded weights are estimates, a few percent off: decompose codes them, and adjusts "
    "the step until they are within the budget"
)


class _File(NamedTuple):
    name: str
    report: Report
    bytes: int


def report_summary(
    report: Report, file_bytes: int, file: str = "FILE", model: str = "MODEL"
) -> tuple[str, list[Table], list[str]]:
    """The conclusion, all tables, and the remarks about one compressed model.

    `file` and `model` are the paths of it and of its checkpoint, for the command of the last line.
    """
    control = [metrics_table(report)] if report.control else []
    totals = totals_table(report.totals)
    tables = [weights_table(report), totals, *control, *bench_tables(report.bench)]
    remarks = [*report_remarks(report, file_bytes), *bench_remarks(report.bench)]
    return conclude(report, file_bytes), tables, [*remarks, str(next_step(report, file, model))]


def weights_table(report: BaseReport) -> Table:
    """One row for each weight whose numbers change."""
    measured = isinstance(report, Report)
    error = "error" if measured else "expected error"
    worst: dict[Column, Callable[[WeightReport], object]] = {
        Column("worst row", right=True, spare=4): lambda weight: error_text(weight.worst_row_error)
    }
    return tabulate(
        report.weights,
        {
            Column("weight", name=True): lambda weight: weight.name,
            Column("format", name=True): lambda weight: weight.format,
            Column("modes", name=True, spare=1): lambda weight: modes_text(
                weight.row_modes, weight.column_modes
            ),
            Column("ranks"): lambda weight: " ".join(map(str, weight.ranks)) or "-",
            Column("store", name=True): lambda weight: weight.store,
            Column("params before", right=True, spare=3): lambda weight: weight.params_before,
            Column("params after", right=True, spare=2): lambda weight: weight.params_after,
            Column("bytes after", right=True): lambda weight: weight.bytes_after,
            Column(error, right=True): lambda weight: error_text(weight.relative_error),
            **(worst if measured else {}),
        },
    )


def totals_table(totals: Mapping[str, Totals]) -> Table:
    """Both scopes: the weights that share the budget, and every tensor of the model."""
    columns = (
        Column("scope"),
        Column("of"),
        Column("before", right=True),
        Column("after", right=True),
        Column("that is"),
    )
    rows: list[tuple[str, ...]] = []
    for scope, found in totals.items():
        for quantity, that_is in (
            ("params", f"{found.params_kept:.1%} kept"),
            ("bytes", f"factor {found.compression_factor:.2f}"),
            ("multiply-adds", f"factor {found.fewer_multiply_adds:.2f}"),
        ):
            field = quantity.replace("-", "_")
            sizes = (f"{getattr(found, f'{field}_{when}'):,}" for when in ("before", "after"))
            rows.append((scope, quantity, *sizes, that_is))
    return Table(columns, tuple(rows))


def metrics_table(report: Report) -> Table:
    """Metrics before and after, and those of the original if it was trained for as long."""
    control = report.control
    cells: dict[Column, Callable[[tuple[str, Change]], object]] = {
        Column("metric", name=True): lambda one: one[0],
        Column("before", right=True): lambda one: f"{one[1]['before']:.4g}",
        Column("after", right=True): lambda one: f"{one[1]['after']:.4g}",
        Column("drop", right=True): lambda one: f"{one[1]['drop']:.4g}",
    }
    if control:
        trained = Column("original, trained as long", right=True)
        cells[trained] = lambda one: f"{control[one[0]]['control']:.4g}"
    cells[Column("better is")] = lambda one: "higher" if one[1]["higher_is_better"] else "lower"
    return tabulate((report.metrics or {}).items(), cells)


def files_table(files: Sequence[tuple[str, Report, int]]) -> Table:
    """Artifacts side by side; with drift and metric if any of them has one.

    Args:
        files: the name of each, its report, and its size in bytes.
    """

    def metric(file: _File) -> str | None:
        """The counting metric with its name: files may have been measured by different tasks."""
        name, found = next(iter((file.report.metrics or {}).items()), ("", None))
        return found and f"{name} {found['after']:.4g}"

    def drift(file: _File) -> str | None:
        found = [drift for steps in file.report.drift.values() for drift in steps.values()]
        return error_text(max(found)) if found else None

    def limits(file: _File) -> str:
        verdicts = {limit["ok"] for limit in file.report.limits}
        return "BROKEN" if False in verdicts else "kept" if verdicts else "-"

    cells: dict[Column, Callable[[_File], object]] = {
        Column("file", name=True): lambda file: file.name,
        Column("format", spare=2): lambda file: (
            " ".join(dict.fromkeys(weight.format for weight in file.report.weights)) or KEEP
        ),
        Column("bytes", right=True): lambda file: file.bytes,
        Column("file", right=True): lambda file: times_text(
            file.report.comparable_bytes, file.bytes
        ),
        Column("weights", right=True, spare=4): lambda file: (
            f"{file.report.totals['weights'].compression_factor:.2f}x"
        ),
        Column("multiply-adds", right=True, spare=3): lambda file: (
            f"{file.report.totals['weights'].fewer_multiply_adds:.2f}x"
        ),
        Column("largest error", right=True, spare=1): lambda file: error_text(
            max((weight.relative_error for weight in file.report.weights), default=0.0)
        ),
    }
    if any(report.drift for _, report, _ in files):
        cells[Column("drift", right=True, spare=5)] = drift
    if any(report.metrics for _, report, _ in files):
        cells[Column("metric", right=True)] = metric
    cells[Column("limits")] = limits
    return tabulate(starmap(_File, files), cells)


def report_remarks(report: Report, file_bytes: int) -> tuple[str, ...]:
    """Lines below a report's tables: sizes, losses, what was kept, notes, limits and metrics.

    The page shows most of it in other ways, and only lists `note_remarks`.
    """
    metrics = [
        f"{name}: {found['before']:.4g} -> {found['after']:.4g}, drop {found['drop']:.4g}"
        for name, found in (report.metrics or {}).items()
    ]
    return (
        *_asked_and_achieved(report, file_bytes),
        _file_text(report, file_bytes),
        *_memory_text(report),
        *loss_remarks(report),
        *lost_remarks(report),
        *_kept_and_noted(report),
        *map(limit_text, report.limits),
        *metrics,
    )


def note_remarks(report: Report, file_bytes: int) -> tuple[str, ...]:
    """The lines of `report_remarks` that say what no table and no picture shows."""
    return (
        *_asked_and_achieved(report, file_bytes),
        *_memory_text(report),
        *large_remarks(report),
        *lost_remarks(report),
        *_noted(report),
        *report.notes,
    )


def plan_remarks(report: PlanReport) -> tuple[str, ...]:
    """Lines below a plan's tables."""
    tensors = report.totals["model"].bytes_after
    alone = "shapes alone (no spectrum was needed)"
    basis = "the weights' spectra" if report.from_spectra else alone
    most = max((len(weight.tried) for weight in report.weights), default=0)
    tolerance = report.recipe["effective"].get("budget", {}).get("tolerance")
    tried = (f"modes: the best of up to {most} tried for each weight, listed by --json",)
    return (
        *_asked_and_achieved(report),
        f"file: {tensors:,} bytes of tensors, plus a header",
        *(tried if most > 1 else ()),
        *lost_remarks(report),
        *_kept_and_noted(report),
        *((ESTIMATED_BYTES,) if any(w.store == CODED.name for w in report.weights) else ()),
        *((EXPECTED_SIZES,) if tolerance else ()),
        f"planned from {basis}; nothing was written",
    )


def _file_text(report: Report, file_bytes: int) -> str:
    """The sizes of both files, and the factor without what was left out."""
    whole, before = report.source["bytes"], report.comparable_bytes
    without = f" without the {whole - before:,} bytes that were left out"
    return (
        f"file: {whole:,} -> {file_bytes:,} bytes, {times_text(before, file_bytes)}"
        f"{without if before < whole else ''}"
    )


def _memory_text(report: Report) -> Iterator[str]:
    """What tensors take once a model is loaded, where the file says least of it."""
    if any(weight.store == CODED.name for weight in report.weights):
        written = sum(weight.bytes_after for weight in report.weights)
        values = sum(weight.params_after for weight in report.weights)
        loaded = report.totals["model"].bytes_after - written + 4 * values
        yield f"in memory: {loaded:,} bytes of tensors once loaded, with cores in float32"


def limit_text(limit: Verdict) -> str:
    """A limit, the value reached, and the verdict.

    >>> limit_text({"name": "min_factor", "limit": 8.0, "value": 7.5, "ok": False})
    'limit min_factor 8: 7.5, BROKEN'
    """
    asked, found = limit_figure(limit["limit"]), limit_figure(limit["value"])
    return f"limit {limit['name']} {asked}: {found}, {'kept' if limit['ok'] else 'BROKEN'}"


def _asked_and_achieved(report: BaseReport, file_bytes: int | None = None) -> Iterator[str]:
    for answer in answers(report, file_bytes):
        yield f"{answer.name}: {answer.achieved} (budget: {answer.asked})"


def _kept_and_noted(report: BaseReport) -> Iterator[str]:
    """Kept weights by name, with the reason; biases and buffers in one line; what was left out;
    then the notes.
    """
    plain = [entry for entry in report.kept if entry.why == NO_WEIGHT]
    for entry in report.kept:
        if entry.why != NO_WEIGHT:
            yield f"{entry.name} is kept ({entry.bytes:,} bytes): {entry.why}"
    if plain:
        total = sum(entry.bytes for entry in plain)
        yield f"not compressed: {counted(len(plain), 'other tensor')}, {total:,} bytes"
    yield from _noted(report)
    yield from left_out_remarks(report.left_out)
    yield from report.notes


def _noted(report: BaseReport) -> Iterator[str]:
    for weight in report.weights:
        yield from (f"{weight.name}: {note}" for note in weight.notes)
