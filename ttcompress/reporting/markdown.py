"""Tables and remarks enter, a Markdown page leaves."""

from __future__ import annotations

from collections.abc import Sequence

from ttcompress.model.report import Report
from ttcompress.reporting.bench import bench_remarks, bench_tables
from ttcompress.reporting.report import report_remarks, totals_table, weights_table
from ttcompress.reporting.table import Table

_SPECIAL = str.maketrans({letter: f"\\{letter}" for letter in "\\|*_`["} | {"<": "&lt;", "\n": " "})
"""What is no text in Markdown; names come out of other people's files, and could be links."""


def report_markdown(title: str, report: Report, file_bytes: int) -> str:
    """A report as a page with a heading: its tables, then its remarks as a list."""
    tables = (weights_table(report), totals_table(report.totals), *bench_tables(report.bench))
    return page(title, tables, (*report_remarks(report, file_bytes), *bench_remarks(report.bench)))


def page(title: str, tables: Sequence[Table], remarks: Sequence[str]) -> str:
    """A heading, tables, and a list of remarks where there are any."""
    parts = [f"# {_escaped(title)}", *map(table_markdown, tables)]
    if remarks:
        parts.append("\n".join(f"- {_escaped(line)}" for line in remarks))
    return "\n\n".join(parts) + "\n"


def table_markdown(table: Table) -> str:
    """A table in the pipe notation that GitHub draws.

    >>> from ttcompress.reporting.table import Column
    >>> print(table_markdown(Table((Column("a"), Column("n", right=True)), (("x", "1"),))))
    | a | n |
    | --- | --: |
    | x | 1 |
    """
    rules = ["--:" if column.right else "---" for column in table.columns]
    rows = [[column.heading for column in table.columns], rules, *table.rows]
    return "\n".join(_line(row, escape=row is not rules) for row in rows)


def _line(cells: Sequence[str], escape: bool) -> str:
    return "| " + " | ".join(_escaped(cell) if escape else cell for cell in cells) + " |"


def _escaped(text: str) -> str:
    return text.translate(_SPECIAL)
