"""Shows the result of a batch: one table row a job, remarks, and a Markdown page for CI."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ttcompress.recipe.wording import counted
from ttcompress.reporting.markdown import page
from ttcompress.reporting.report import limit_text
from ttcompress.reporting.table import Column, Table
from ttcompress.results.batch import BatchResult
from ttcompress.results.outcome import Outcome


def batch_table(result: BatchResult) -> Table:
    """One row for each job."""
    columns = (
        Column("model", name=True),
        Column("recipe", name=True),
        Column("bytes before", right=True),
        Column("bytes after", right=True),
        Column("factor", right=True),
        Column("metric", name=True),
        Column("before", right=True),
        Column("after", right=True),
        Column("limits"),
        Column("seconds", right=True),
        Column("status"),
    )
    return Table(columns, tuple(map(_row, result.outcomes)))


def batch_remarks(result: BatchResult) -> tuple[str, ...]:
    """What the table leaves out: broken limits, errors, and the count of each status."""
    return (*_problems(result), _summary(result))


def batch_markdown(result: BatchResult) -> str:
    """A page with a heading, fit for the summary of a CI job."""
    return page(
        f"{result.manifest}: {_summary(result)}", [batch_table(result)], tuple(_problems(result))
    )


def _problems(result: BatchResult) -> Iterator[str]:
    for outcome in result.outcomes:
        yield from remarks_of(outcome)


def _summary(result: BatchResult) -> str:
    found = Counter(outcome.status for outcome in result.outcomes)
    parts = [f"{number} {status}" for status, number in sorted(found.items())]
    cached = sum(outcome.cached for outcome in result.outcomes)
    parts += [f"{cached} from the cache"] if cached else []
    jobs = counted(len(result.outcomes), "job")
    return f"{jobs} in {result.seconds:.1f} s: {', '.join(parts)}"


def remarks_of(outcome: Outcome) -> Iterator[str]:
    """Why an outcome is not plainly done."""
    for limit in outcome.limits:
        if not limit["ok"]:
            yield f"{outcome.name}: {limit_text(limit)}"
    if outcome.error:
        yield f"{outcome.name}: {outcome.error.splitlines()[0]}"
    if outcome.attempts > 1:
        yield f"{outcome.name}: started {outcome.attempts} times, its worker process had died"


def _row(outcome: Outcome) -> tuple[str, ...]:
    name, change = outcome.counting or ("-", None)
    before, after = (change["before"], change["after"]) if change else (None, None)
    broken = [limit["name"] for limit in outcome.limits if not limit["ok"]]
    kept = "kept" if outcome.limits else "-"
    return (
        outcome.model,
        outcome.recipe,
        _figure(outcome.bytes_before),
        _figure(outcome.bytes_after),
        "-" if outcome.factor is None else f"{outcome.factor:.2f}",
        name,
        _figure(before),
        _figure(after),
        f"BROKEN {' '.join(broken)}" if broken else kept,
        f"{outcome.seconds:.1f}",
        f"{outcome.status}, cached" if outcome.cached else outcome.status,
    )


def _figure(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
