"""Puts the commands and options of `--help` under headings.

Typer knows headings as `rich_help_panel` and shows them only through Rich, whose import would take
longer than all of `--help`. Here they are plain sections of text.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from typer.core import TyperCommand, TyperGroup

ARGUMENTS, OPTIONS = "Arguments", "Options"
RECIPE = "Recipe"
BUDGET = "Size and format (budgets may be combined)"
TASK = "Task and training"
LIMITS = "Limits (the file is written all the same)"
JOBS = "Jobs"
OUTPUT = "Output"

_ORDER = (ARGUMENTS, OPTIONS, BUDGET, RECIPE, TASK, LIMITS, JOBS, OUTPUT)

_WIDEST = 32  # characters; a longer option has its help on the next line

Entry = tuple[str, tuple[str, str]]
"""A heading, and a name with its help."""


class Command(TyperCommand):
    """A command whose options stand under the headings they were declared with."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the sections in the order of `_ORDER`."""
        entries = []
        for parameter in self.get_params(ctx):
            if (record := parameter.get_help_record(ctx)) is not None:
                default = ARGUMENTS if parameter.param_type_name == "argument" else OPTIONS
                entries.append((getattr(parameter, "rich_help_panel", None) or default, record))
        _write_sections(formatter, sorted(entries, key=lambda entry: _ORDER.index(entry[0])))


class Group(TyperGroup):
    """Commands under the headings they were registered with."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the sections in the order of registration."""
        room = formatter.width - 4 - max(map(len, self.commands))
        entries = [
            (getattr(command, "rich_help_panel", None) or "Commands", (name, short))
            for name, command in self.commands.items()
            for short in [command.get_short_help_str(room)]
        ]
        _write_sections(formatter, entries)


def _write_sections(formatter: Any, entries: Iterable[Entry]) -> None:
    """Write entries by heading, with one column of names for all sections."""
    sections: dict[str, list[tuple[str, str]]] = {}
    for heading, record in entries:
        sections.setdefault(heading, []).append(record)
    lengths = [len(name) for records in sections.values() for name, _ in records]
    width = max((length for length in lengths if length <= _WIDEST), default=0)
    for heading, records in sections.items():
        with formatter.section(heading):
            formatter.write_dl([(name.ljust(width), text) for name, text in records], _WIDEST + 2)
