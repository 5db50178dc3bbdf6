"""Shows the result of a batch: a table with a row for each job, remarks, and a page for CI."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ttcompress.recipe.wording import counted
from ttcompress.reporting.markdown import page
from ttcompress.reporting.report import limit_text
from ttcompress.reporting.table import Column, Table, tabulate
from ttcompress.results.batch import BatchResult
from ttcompress.results.outcome import Outcome


def batch_table(result: BatchResult) -> Table:
    """One row for each job."""

    def metric(outcome: Outcome, key: str) -> object:
        return outcome.counting and outcome.counting[1].get(key)

    def factor(outcome: Outcome) -> str | None:
        return None if outcome.factor is None else f"{outcome.factor:.2f}"

    def limits(outcome: Outcome) -> str | None:
        broken = [limit["name"] for limit in outcome.limits if not limit["ok"]]
        kept = "kept" if outcome.limits else None
        return f"BROKEN {' '.join(broken)}" if broken else kept

    return tabulate(
        result.outcomes,
        {
            Column("model", name=True): lambda one: one.model,
            Column("recipe", name=True): lambda one: one.recipe,
            Column("bytes before", right=True): lambda one: one.bytes_before,
            Column("bytes after", right=True): lambda one: one.bytes_after,
            Column("factor", right=True): factor,
            Column("metric", name=True): lambda one: one.counting and one.counting[0],
            Column("before", right=True): lambda one: metric(one, "before"),
            Column("after", right=True): lambda one: metric(one, "after"),
            Column("limits"): limits,
            Column("seconds", right=True): lambda one: f"{one.seconds:.1f}",
            Column("status"): lambda one: f"{one.status}, cached" if one.cached else one.status,
        },
    )


def batch_remarks(result: BatchResult) -> tuple[str, ...]:
    """What the table does not show: broken limits, errors, and the count of each status."""
    return (*_problems(result), _summary(result))


def batch_markdown(result: BatchResult) -> str:
    """A page with a heading, fit for the summary of a CI job."""
    title = f"{result.manifest}: {_summary(result)}"
    return page(title, [batch_table(result)], _problems(result))


def outcome_remarks(outcome: Outcome) -> Iterator[str]:
    """Say why an outcome is not simply done: a broken limit, an error, a restart."""
    for limit in outcome.limits:
        if not limit["ok"]:
            yield f"{outcome.name}: {limit_text(limit)}"
    if outcome.error:
        yield f"{outcome.name}: {outcome.error.splitlines()[0]}"
    if outcome.attempts > 1:
        yield f"{outcome.name}: started {outcome.attempts} times, because its worker process died"


def _problems(result: BatchResult) -> list[str]:
    return [line for outcome in result.outcomes for line in outcome_remarks(outcome)]


def _summary(result: BatchResult) -> str:
    found = Counter(outcome.status for outcome in result.outcomes)
    parts = [f"{number} {status}" for status, number in sorted(found.items())]
    cached = sum(outcome.cached for outcome in result.outcomes)
    parts += [f"{cached} from the cache"] if cached else []
    jobs = counted(len(result.outcomes), "job")
    return f"{jobs} in {result.seconds:.1f} s: {', '.join(parts)}"
