"""Tables, messages and progress enter; text on stdout and stderr leaves. Alone here knows Rich.

Results go to stdout, talk to stderr. Rich leaves out colours where nobody looks.
"""

from __future__ import annotations

import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Timer
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import Progress as Bars
from rich.table import Table as RichTable

from ttcompress.cli.arguments import Talk
from ttcompress.errors import TTCompressError
from ttcompress.reporting.comparison import HALF, WHOLE
from ttcompress.reporting.inspection import LEVELS
from ttcompress.reporting.table import Table
from ttcompress.system.json import finite
from ttcompress.system.launch import is_first
from ttcompress.system.progress import Progress, silent

if TYPE_CHECKING:
    from ttcompress.training.loop import StepReport

_PATIENCE = 1.0  # seconds without bars: shorter work needs none
_WIDE = 100  # characters from which columns may stand apart
_PIPE_WIDTH = 240
_PLAIN = str.maketrans(dict(zip(LEVELS, "12345678", strict=True)) | {WHOLE: "=", HALF: "-"})
_COMMANDING = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]|\r(?!\n)")
"""Control characters but tabs and line ends, and halves of surrogate pairs, which nothing shows."""

_STAGES = {
    "spectra": "measuring spectra",
    "decompose": "decomposing",
    "verify": "verifying",
    "finetune": "fine-tuning",
    "evaluate": "measuring",
}


def document(content: Any) -> None:
    """One JSON document on stdout; infinities are null, for JSON has no word for them."""
    content = finite(content)
    written = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    try:
        written.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # a file's name need not be text
        written = json.dumps(content, indent=2)
    sys.stdout.write(written + "\n")


def text(content: str) -> None:
    """Text on stdout, as it is, but for what would command the terminal."""
    sys.stdout.write(_harmless(content))


def show(title: str, tables: Sequence[Table], lines: Sequence[str] = ()) -> None:
    """A result on stdout: a title, tables, and lines of text."""
    console = _stdout()
    if title:
        console.print(_harmless(title), style="bold", soft_wrap=True)
    for table in tables:
        if table.rows:
            console.print()
            _draw(console, table)
    if lines:
        console.print()
    for line in lines:
        console.print(_harmless(line), soft_wrap=not console.is_terminal)


def say(message: str, talk: Talk) -> None:
    """Talk on stderr, unless the user wants none."""
    if not talk.quiet:
        _stderr().print(_harmless(message), soft_wrap=True)


def fail(error: TTCompressError, verbose: bool) -> None:
    """An error's message on stderr; with `verbose`, where it came from."""
    if verbose:
        traceback.print_exception(error)
    _stderr().print(_harmless(f"error: {error}"), style="red", soft_wrap=True)


@contextmanager
def progress(talk: Talk) -> Iterator[Progress]:
    """Bars on stderr for as long as the block runs, once it has run for a second.

    None are drawn where stderr is no terminal.
    """
    console = _stderr()
    if talk.quiet or not is_first() or not console.is_terminal:
        yield silent
        return
    bars = Bars(*_columns(), console=console, transient=True)
    timer = Timer(_PATIENCE, bars.start)
    timer.start()
    try:
        yield _teller(bars)
    finally:
        timer.cancel()
        timer.join()
        bars.stop()


@contextmanager
def jobs_progress(talk: Talk) -> Iterator[tuple[Progress, Callable[[str], None]]]:
    """A bar for the batch and one for each running job, and a way to say lines above them.

    Where stderr is no terminal there are the lines alone.
    """
    console = _stderr()

    def line(text: str) -> None:
        if not talk.quiet:
            console.print(_harmless(text), soft_wrap=True)

    if talk.quiet or not console.is_terminal:
        yield silent, line
        return
    with Bars(*_columns(), console=console, transient=True) as bars:
        yield _teller(bars, leave_done=False), line


def _columns() -> tuple[ProgressColumn, ...]:
    return (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[detail]}", markup=False),
    )


def watching(progress: Progress, talk: Talk) -> Callable[[StepReport], None]:
    """Tell about training: on the bar, and a line at the end of every epoch where there is none."""
    bars = progress is not silent

    def watch(report: StepReport) -> None:
        left = (report.steps - report.step) / max(report.steps_per_second, 1e-9)
        best = "".join(f", {name} {value:.4g}" for name, value in (report.metrics or {}).items())
        speed = f"{report.steps_per_second:.2g} steps/s, {left:.0f} s left"
        progress("finetune", report.step, report.steps, f"loss {report.loss:.3f}, {speed}")
        if report.metrics is not None and not bars and is_first():
            say(f"step {report.step} of {report.steps}: loss {report.loss:.3f}{best}", talk)

    return watch


def _teller(bars: Bars, leave_done: bool = True) -> Progress:
    tasks: dict[str, TaskID] = {}

    def tell(stage: str, done: int, total: int, detail: str = "") -> None:
        if stage not in tasks:
            tasks[stage] = bars.add_task(_STAGES.get(stage, stage), detail=detail)
        detail = _harmless(_STAGES.get(detail, detail))  # of a job
        over = done == total and not detail
        visible = leave_done or not over
        bars.update(tasks[stage], completed=done, total=total, detail=detail, visible=visible)

    return tell


def _stdout() -> Console:
    """A pipe has no width of its own: a row stays one line there, for grep, unless asked."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _PIPE_WIDTH
    return console


def _stderr() -> Console:
    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def _draw(console: Console, table: Table) -> None:
    """A table whose names stay in one piece, without the columns that this width has no room for.

    Where even that is too wide, everything is folded.
    """
    gap = 2 if console.width >= _WIDE and _least_width(table, 2) <= console.width else 1
    narrow = table
    while _least_width(narrow, gap) > console.width and any(c.spare for c in narrow.columns):
        narrow = _without_most_spare(narrow)
    fits = _least_width(narrow, gap) <= console.width
    drawn = RichTable(box=None, pad_edge=False, padding=(0, gap, 0, 0))
    for column in narrow.columns:
        drawn.add_column(
            _harmless(column.heading),
            justify="right" if column.right else "left",
            no_wrap=column.name and fits,
            overflow="fold",
        )
    for row in narrow.rows:
        drawn.add_row(*(_encodable(cell, console.encoding) for cell in row))
    console.print(drawn)
    left_out = [column.heading for column in table.columns if column not in narrow.columns]
    if left_out:
        console.print(_harmless(f"not shown at this width: {', '.join(left_out)}"), style="dim")


def _without_most_spare(table: Table) -> Table:
    most = max(column.spare for column in table.columns)
    places = [k for k, column in enumerate(table.columns) if column.spare < most]
    columns = tuple(table.columns[k] for k in places)
    return Table(columns, tuple(tuple(row[k] for k in places) for row in table.rows))


def _least_width(table: Table, gap: int) -> int:
    """Characters that a table needs so that nothing is folded but at spaces, and names nowhere."""
    widths = (_least_column_width(table, index) for index in range(len(table.columns)))
    return sum(widths) + gap * (len(table.columns) - 1)


def _least_column_width(table: Table, index: int) -> int:
    cells = [row[index] for row in table.rows]
    pieces = cells if table.columns[index].name else [w for cell in cells for w in cell.split()]
    return max(map(len, [*table.columns[index].heading.split(), *pieces]))


def _harmless(content: str) -> str:
    """Names come out of other people's files: no character of theirs commands the terminal."""
    return _COMMANDING.sub("?", content)


def _encodable(cell: str, encoding: str) -> str:
    """Blocks and lines as plain characters where the output cannot show them."""
    cell = _harmless(cell)
    try:
        cell.encode(encoding)
    except UnicodeEncodeError:
        return cell.translate(_PLAIN)
    return cell
