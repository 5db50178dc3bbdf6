"""Prints results to stdout, and messages and progress to stderr; the only module that uses Rich.

Rich omits colours when the output is not a terminal.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from threading import Timer
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table as RichTable
from rich.text import Text

from ttcompress.cli.arguments import Talk
from ttcompress.errors import TaskError, TTCompressError
from ttcompress.recipe.problems import CURE_INDENT
from ttcompress.reporting.comparison import HALF, WHOLE
from ttcompress.reporting.inspection import LEVELS
from ttcompress.reporting.table import Table
from ttcompress.system.json import finite
from ttcompress.system.launch import is_first
from ttcompress.system.progress import Progress, silent
from ttcompress.system.text import clean_for_terminal
from ttcompress.system.threads import remark_on_environment

if TYPE_CHECKING:
    from ttcompress.training.loop import StepReport

PATIENCE = 1.0
"""Seconds before bars appear: shorter work needs none."""

LINE_EVERY = 30.0
"""Seconds between two lines of progress where there is no terminal for bars."""

_WIDE = 100  # characters from which there is room between columns
_PIPE_WIDTH = 100_000  # characters: no table is as wide, so none loses a column in a pipe
_PLAIN = str.maketrans(dict(zip(LEVELS, "12345678", strict=True)) | {WHOLE: "=", HALF: "-"})

_SENTENCE = re.compile(r"(?<=[.?])\s+(?=[A-Z`])")
"""Where the first sentence of an error, which is the fact, ends and its cure begins."""

_STAGES = {
    "spectra": "measuring spectra",
    "round": "rounding",
    "decompose": "decomposing",
    "verify": "verifying",
    "finetune": "fine-tuning",
    "evaluate": "measuring",
}


def result(
    talk: Talk,
    found: Any,
    title: str,
    tables: Sequence[Table],
    lines: Sequence[str] = (),
) -> None:
    """Print a command's result: one JSON document if the user asked for it, otherwise tables.

    `found` is a value with `as_json`, or plain already.
    """
    if talk.json:
        document(found.as_json() if hasattr(found, "as_json") else found)
    else:
        show(title, tables, lines)


def document(content: Any, file: TextIO | None = None) -> None:
    """Print one JSON document; infinities, which JSON lacks, are null."""
    file = file or sys.stdout
    content = finite(content)
    written = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    try:
        written.encode(file.encoding or "utf-8")
    except UnicodeEncodeError:  # a file's name need not be text
        written = json.dumps(content, indent=2)
    file.write(written + "\n")


def text(content: str, file: TextIO | None = None) -> None:
    """Print text unchanged, except for control characters of the terminal."""
    (file or sys.stdout).write(clean_for_terminal(content))


def show(
    title: str,
    tables: Sequence[Table],
    lines: Sequence[str] = (),
    *,
    file: TextIO | None = None,
    width: int | None = None,
) -> None:
    """Print a title, tables, and lines of text.

    A pipe or a file has no width: there a row stays on one line, for grep, unless the user sets
    COLUMNS.
    """
    console = Console(file=file, width=width, highlight=False, markup=False, emoji=False)
    if width is None and not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _PIPE_WIDTH
    if title:
        console.print(clean_for_terminal(title), style="bold", soft_wrap=True)
    for table in tables:
        if table.rows:
            console.print()
            _draw(console, table)
    if lines:
        console.print()
    for line in lines:
        console.print(clean_for_terminal(line), soft_wrap=not console.is_terminal)


def say(message: str, talk: Talk) -> None:
    """Print a message to stderr, unless the user asked for quiet."""
    if not talk.quiet:
        stderr().print(clean_for_terminal(message), soft_wrap=True)


def fail(error: TTCompressError, verbose: bool) -> None:
    """Print an error's message to stderr; with `verbose`, its traceback first."""
    more = ""
    if verbose:
        traceback.print_exception(error)
    elif isinstance(error, TaskError):  # who wrote the code may want to see the way to it
        more = " -v prints the traceback."
    console, message = stderr(), clean_for_terminal(f"{error}{more}")
    if console.is_terminal:
        console.print(set_apart(message), soft_wrap=True)
    else:  # one line, for grep
        console.print(f"error: {message}", soft_wrap=True)


def set_apart(message: str) -> Text:
    """An error for a terminal: the facts in red, and each cure below its fact, as usual text."""
    text = Text()
    text.append("error: ", style="bold red")
    for line in message.split("\n"):
        indent = len(line) - len(line.lstrip())
        fact, cure = line, ""
        if indent >= CURE_INDENT:
            fact, cure = "", line
        elif end := _SENTENCE.search(line):
            fact, cure = line[: end.start()], f"{' ' * (indent + 2)}{line[end.end() :]}"
        text.append(fact, style="red")
        text.append("\n" * bool(fact and cure) + cure + "\n")
    text.rstrip()
    return text


@contextmanager
def progress(talk: Talk) -> Iterator[Progress]:
    """Show bars on stderr while the block runs, once it has run for a second.

    If stderr is not a terminal, a line now and then takes their place.
    """
    console = stderr()
    if talk.quiet or not is_first():
        yield silent
        return
    if remark := remark_on_environment():
        say(remark, talk)
    if not console.is_terminal:
        yield _line_teller(partial(say, talk=talk))
        return
    bars = _bars(console)
    timer = Timer(PATIENCE, bars.start)
    timer.start()
    try:
        yield _teller(bars)
    finally:
        timer.cancel()
        timer.join()
        bars.stop()


@contextmanager
def jobs_progress(talk: Talk) -> Iterator[tuple[Progress, Callable[[str], None]]]:
    """Show a bar for the batch and one for each running job; also gives a way to print above them.

    If stderr is not a terminal, a line now and then takes the place of the bars.
    """
    console = stderr()

    def line(text: str) -> None:
        if not talk.quiet:
            console.print(clean_for_terminal(text), soft_wrap=True)

    try:
        if talk.quiet or not console.is_terminal:
            yield silent if talk.quiet else _line_teller(line), line
            return
        with _bars(console) as bars:
            yield _teller(bars, leave_done=False), line
    except KeyboardInterrupt:
        line("interrupted: finished jobs are kept, and the same command does the others")
        raise


def _bars(console: Console) -> Bars:
    stage = TextColumn("{task.description}", markup=False)
    detail = TextColumn("{task.fields[detail]}", markup=False)
    columns = (stage, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), detail)
    return Bars(*columns, console=console, transient=True)


def watching(progress: Progress, talk: Talk) -> Callable[[StepReport], None]:
    """Report on training: its progress, and without bars a line at the end of every epoch."""
    bars = stderr().is_terminal

    def watch(report: StepReport) -> None:
        left = (report.steps - report.step) / max(report.steps_per_second, 1e-9)
        best = "".join(f", {name} {value:.4g}" for name, value in (report.metrics or {}).items())
        speed = f"{report.steps_per_second:.2g} steps/s, {left:.0f} s left"
        progress("finetune", report.step, report.steps, f"loss {report.loss:.3f}, {speed}")
        if report.metrics is not None and not bars and is_first():
            say(f"step {report.step} of {report.steps}: loss {report.loss:.3f}{best}", talk)

    return watch


def _line_teller(line: Callable[[str], None]) -> Progress:
    last = time.monotonic()

    def tell(stage: str, done: int, total: int, detail: str = "") -> None:
        nonlocal last
        if time.monotonic() - last >= LINE_EVERY:
            last = time.monotonic()
            detail = _STAGES.get(detail, detail)  # a job's detail is its stage
            more = f", {detail}" if detail else ""
            line(f"{_STAGES.get(stage, stage)}: {done} of {total}{more}")

    return tell


def _teller(bars: Bars, leave_done: bool = True) -> Progress:
    tasks: dict[str, TaskID] = {}

    def tell(stage: str, done: int, total: int, detail: str = "") -> None:
        if stage not in tasks:
            tasks[stage] = bars.add_task(_STAGES.get(stage, stage), detail=detail)
        detail = clean_for_terminal(_STAGES.get(detail, detail))  # a job's detail is its stage
        over = done == total and not detail
        visible = leave_done or not over
        bars.update(tasks[stage], completed=done, total=total, detail=detail, visible=visible)

    return tell


def stderr() -> Console:
    """The console for messages and progress."""
    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def _draw(console: Console, table: Table) -> None:
    """Draw a table with names unbroken, dropping spare columns that do not fit the width.

    If it is still too wide, everything is folded.
    """
    left = list(range(len(table.columns)))
    widths = [_least_width(table, index) for index in left]

    def needed(gap: int) -> int:
        return sum(widths[index] for index in left) + gap * (len(left) - 1)

    gap = 2 if console.width >= _WIDE and needed(2) <= console.width else 1
    while needed(gap) > console.width and (
        most := max(table.columns[index].spare for index in left)
    ):
        left = [index for index in left if table.columns[index].spare < most]
    fits = needed(gap) <= console.width
    drawn = RichTable(box=None, pad_edge=False, padding=(0, gap, 0, 0))
    for column in (table.columns[index] for index in left):
        drawn.add_column(
            clean_for_terminal(column.heading),
            justify="right" if column.right else "left",
            no_wrap=column.name and fits,
            overflow="fold",
        )
    for row in table.rows:
        drawn.add_row(*(_encodable(row[index], console.encoding) for index in left))
    console.print(drawn)
    if len(left) < len(table.columns):
        lost = [c.heading for index, c in enumerate(table.columns) if index not in left]
        console.print(
            clean_for_terminal(f"not shown at this width: {', '.join(lost)}"), style="dim"
        )


def _least_width(table: Table, index: int) -> int:
    """Characters that a column needs, if text is folded at spaces only and names nowhere."""
    column, cells = table.columns[index], [row[index] for row in table.rows]
    pieces = cells if column.name else [word for cell in cells for word in cell.split()]
    return max(map(len, [*column.heading.split(), *pieces]))


def _encodable(cell: str, encoding: str) -> str:
    """Replace blocks and lines by plain characters if the output cannot show them."""
    cell = clean_for_terminal(cell)
    try:
        cell.encode(encoding)
    except UnicodeEncodeError:
        return cell.translate(_PLAIN)
    return cell
