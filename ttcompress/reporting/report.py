"""Reports and plans enter, tables of text leave; the console and Markdown draw the same tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ttcompress.model.report import (
    Change,
    KeptReport,
    Report,
    Scope,
    Verdict,
    WeightReport,
    times_fewer,
)
from ttcompress.recipe.wording import counted
from ttcompress.reporting.budget import answers, error_of
from ttcompress.reporting.table import Column, Table
from ttcompress.results.from_plan import NO_WEIGHT
from ttcompress.results.plan import PlannedWeightReport, PlanReport

EXPECTED_SIZES = (
    "sizes are expected under a tolerance: decompose measures the rounding, "
    "and takes more ranks or bits where it is above"
)
NOT_MEASURED = "accuracy not measured: add --task"


def weights_table(report: Report | PlanReport) -> Table:
    """One row for each weight whose numbers change."""
    error = "error" if isinstance(report, Report) else "expected error"
    columns = (
        Column("weight", name=True),
        Column("format", name=True),
        Column("modes", name=True, spare=1),
        Column("ranks"),
        Column("store", name=True),
        Column("params before", right=True, spare=3),
        Column("params after", right=True, spare=2),
        Column("bytes after", right=True),
        Column(error, right=True),
    )
    return Table(columns, tuple(map(_weight_row, report.weights)))


def totals_table(totals: Mapping[str, Scope]) -> Table:
    """Both scopes: the weights that share the budget, and every tensor of the model."""
    columns = (
        Column("scope"),
        Column("of"),
        Column("before", right=True),
        Column("after", right=True),
        Column("that is"),
    )
    rows = tuple(row for name, scope in totals.items() for row in _scope_rows(name, scope))
    return Table(columns, rows)


def report_remarks(report: Report, file_bytes: int) -> tuple[str, ...]:
    """Lines below a report's tables: asked and achieved, the file, what was kept, the limits."""
    before = report.source["bytes"]
    return (
        *_asked_and_achieved(report, file_bytes),
        f"file: {before:,} -> {file_bytes:,} bytes, {times_fewer(before, file_bytes):.2f}x",
        *_kept_and_noted(report),
        *map(limit_text, report.limits),
        *(_metrics(report.metrics) if report.metrics else (NOT_MEASURED,)),
    )


def plan_remarks(report: PlanReport) -> tuple[str, ...]:
    """Lines below a plan's tables."""
    tensors = report.totals["model"].bytes_after
    basis = "the weights' spectra" if report.from_spectra else "shapes alone, no weight was read"
    most = max((len(weight.tried) for weight in report.weights), default=0)
    tolerance = report.recipe["effective"].get("budget", {}).get("tolerance")
    tried = (f"modes: the best of up to {most} tried for each weight, listed by --json",)
    return (
        *_asked_and_achieved(report),
        f"file: {tensors:,} bytes of tensors, and a header",
        *(tried if most > 1 else ()),
        *_kept_and_noted(report),
        *((EXPECTED_SIZES,) if tolerance else ()),
        f"planned from {basis}; nothing was written",
    )


def _asked_and_achieved(
    report: Report | PlanReport, file_bytes: int | None = None
) -> Iterator[str]:
    for answer in answers(report, file_bytes):
        yield f"{answer.name}: {answer.asked} asked, {answer.achieved} achieved"


def _kept_and_noted(report: Report | PlanReport) -> Iterator[str]:
    yield from _kept(report.kept)
    for weight in report.weights:
        yield from (f"{weight.name}: {note}" for note in weight.notes)
    yield from report.notes


def _metrics(metrics: Mapping[str, Change]) -> Iterator[str]:
    for name, found in metrics.items():
        before, after, drop = (found[key] for key in ("before", "after", "drop"))
        yield f"{name}: {before:.4g} -> {after:.4g}, drop {drop:.4g}"


def limit_text(limit: Verdict) -> str:
    """A limit with what was asked, what was found, and the verdict.

    >>> limit_text({"name": "min_factor", "limit": 8.0, "value": 7.5, "ok": False})
    'limit min_factor 8: 7.5, BROKEN'
    """
    verdict = "kept" if limit["ok"] else "BROKEN"
    return f"limit {limit['name']} {_figure(limit['limit'])}: {_figure(limit['value'])}, {verdict}"


def _figure(value: float) -> str:
    """Four digits, unless that would take an exponent: sizes are whole numbers with commas."""
    return f"{value:.4g}" if isinstance(value, float) and abs(value) < 1000 else f"{value:,.0f}"


def _kept(entries: Sequence[KeptReport]) -> Iterator[str]:
    """Weights kept by name, with the reason; biases and buffers in one line."""
    plain = [entry for entry in entries if entry.why == NO_WEIGHT]
    for entry in entries:
        if entry.why != NO_WEIGHT:
            yield f"{entry.name} is kept ({entry.bytes:,} bytes): {entry.why}"
    if plain:
        total = sum(entry.bytes for entry in plain)
        yield f"kept beside the weights: {counted(len(plain), 'tensor')}, {total:,} bytes"


def _weight_row(weight: WeightReport | PlannedWeightReport) -> tuple[str, ...]:
    error = error_of(weight)
    return (
        weight.name,
        weight.format,
        modes_text(weight.row_modes, weight.column_modes),
        " ".join(map(str, weight.ranks)) or "-",
        weight.store,
        f"{weight.params_before:,}",
        f"{weight.params_after:,}",
        f"{weight.bytes_after:,}",
        "-" if error is None else error_text(error),
    )


def error_text(error: float) -> str:
    """Four decimals, unless nothing would be left of it.

    >>> error_text(0.01234), error_text(3.2e-7), error_text(0.0)
    ('0.0123', '3.2e-07', '0.0000')
    """
    return f"{error:.1e}" if 0 < error < 1e-4 else f"{error:.4f}"


def modes_text(row_modes: Sequence[int], column_modes: Sequence[int]) -> str:
    """Row modes, then column modes.

    >>> modes_text((4, 16, 16), (8, 32))
    '4.16.16 x 8.32'
    """
    if not row_modes:
        return "-"
    return f"{'.'.join(map(str, row_modes))} x {'.'.join(map(str, column_modes))}"


def _scope_rows(name: str, scope: Scope) -> Iterator[tuple[str, ...]]:
    fewer = times_fewer(scope.multiply_adds_before, scope.multiply_adds_after)
    for quantity, before, after, that_is in (
        ("params", scope.params_before, scope.params_after, f"{scope.params_kept:.1%} kept"),
        ("bytes", scope.bytes_before, scope.bytes_after, f"factor {scope.compression_factor:.2f}"),
        (
            "multiply-adds",
            scope.multiply_adds_before,
            scope.multiply_adds_after,
            f"factor {fewer:.2f}",
        ),
    ):
        yield (name, quantity, f"{before:,}", f"{after:,}", that_is)


def comparison_table(reports: Sequence[tuple[str, Report, int]]) -> Table:
    """Files side by side; each comes with its name and its size in bytes."""
    measured = any(report.metrics for _, report, _ in reports)
    columns = (
        Column("file", name=True),
        Column("format", spare=2),
        Column("bytes", right=True),
        Column("file", right=True),
        Column("weights", right=True, spare=4),
        Column("multiply-adds", right=True, spare=3),
        Column("largest error", right=True, spare=1),
        *((Column("metric", right=True),) if measured else ()),
        Column("limits"),
    )
    return Table(columns, tuple(_file_row(*entry, measured) for entry in reports))


def _file_row(name: str, report: Report, file_bytes: int, measured: bool) -> tuple[str, ...]:
    weights = report.totals["weights"]
    fewer = times_fewer(weights.multiply_adds_before, weights.multiply_adds_after)
    formats = dict.fromkeys(weight.format for weight in report.weights)
    verdicts = {limit["ok"] for limit in report.limits}
    return (
        name,
        " ".join(formats) or "keep",
        f"{file_bytes:,}",
        f"{times_fewer(report.source['bytes'], file_bytes):.2f}x",
        f"{weights.compression_factor:.2f}x",
        f"{fewer:.2f}x",
        error_text(max((w.relative_error for w in report.weights), default=0.0)),
        *((_counting_metric(report),) if measured else ()),
        "BROKEN" if False in verdicts else "kept" if verdicts else "-",
    )


def _counting_metric(report: Report) -> str:
    """The first one with its name: files may have been measured by different tasks."""
    name, found = next(iter((report.metrics or {}).items()), ("", None))
    return "-" if found is None else f"{name} {found['after']:.4g}"
