"""A compressed model in a few lines, as a Python prompt and a notebook show it."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from ttcompress.model.report import Report
from ttcompress.recipe.wording import counted
from ttcompress.reporting.numbers import error_text
from ttcompress.reporting.report import limit_text, totals_table
from ttcompress.reporting.table import Table


def summary_text(report: Report, file_bytes: int) -> str:
    """What `repr` of a compressed model gives."""
    totals = report.totals
    factors = " and ".join(
        f"{found.compression_factor:.2f}x of the {scope}" for scope, found in totals.items()
    )
    head = f"CompressedModel: {factors}, {file_bytes:,} bytes as a file"
    return "\n  ".join([head, *_lines(report)])


def summary_html(report: Report, file_bytes: int) -> str:
    """The same with the table of totals, as a fragment of HTML."""
    lines = "".join(f"<li>{escape(line)}</li>" for line in _lines(report))
    head = f"<p><b>CompressedModel</b>, {file_bytes:,} bytes as a file</p>"
    return f"{head}{_table_html(totals_table(report.totals))}<ul>{lines}</ul>"


def _lines(report: Report) -> Iterator[str]:
    formats = " ".join(dict.fromkeys(weight.format for weight in report.weights)) or "nothing"
    worst = max((weight.relative_error for weight in report.weights), default=0.0)
    changed = f"{counted(len(report.weights), 'weight')} changed ({formats})"
    yield f"{changed}, largest error {error_text(worst)}"
    for name, found in (report.metrics or {}).items():
        yield f"{name}: {found['before']:.4g} -> {found['after']:.4g}"
    if not report.metrics:
        yield "accuracy not measured: give a task"
    yield from map(limit_text, report.limits)


def _table_html(table: Table) -> str:
    def row(cells: tuple[str, ...], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    heads = tuple(column.heading for column in table.columns)
    return f"<table>{row(heads, 'th')}{''.join(row(cells, 'td') for cells in table.rows)}</table>"
