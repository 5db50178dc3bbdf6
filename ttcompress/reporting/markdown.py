"""Writes tables and remarks as a Markdown page."""

from __future__ import annotations

from collections.abc import Sequence

from ttcompress.model.report import Report
from ttcompress.reporting.report import report_summary
from ttcompress.reporting.table import Table

_SPECIAL = str.maketrans({letter: f"\\{letter}" for letter in "\\|*_`["} | {"<": "&lt;", "\n": " "})
"""Characters that Markdown interprets; names come from other people's files, and could be links."""


def report_markdown(title: str, report: Report, file_bytes: int) -> str:
    """A report as a page with a heading: its conclusion, its tables, and its remarks as a list."""
    conclusion, tables, remarks = report_summary(report, file_bytes, file=title)
    return page(title, tables, remarks, lead=conclusion)


def page(title: str, tables: Sequence[Table], remarks: Sequence[str], lead: str = "") -> str:
    """A heading, a lead if there is one, tables, and the remarks, if any, as a list."""
    parts = [f"# {_escaped(title)}", *filter(None, [_escaped(lead)]), *map(table_markdown, tables)]
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
    heading, *rows = (
        list(map(_escaped, row)) for row in ([c.heading for c in table.columns], *table.rows)
    )
    return "\n".join(f"| {' | '.join(row)} |" for row in (heading, rules, *rows))


def _escaped(text: str) -> str:
    return text.translate(_SPECIAL)
