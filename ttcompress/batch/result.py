"""All outcomes of a batch as one value; a table, remarks and JSON leave. No torch, no Rich."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version

from ttcompress.batch.outcome import Outcome
from ttcompress.errors import BROKEN_LIMIT, PARTLY_FAILED
from ttcompress.recipe.wording import counted
from ttcompress.report.markdown import page
from ttcompress.report.model import Json
from ttcompress.report.tables import Column, Table, limit_text


@dataclass(frozen=True)
class BatchResult:
    """What became of every job, in the order of the manifest; `seconds` are of the whole batch."""

    manifest: str
    outcomes: tuple[Outcome, ...]
    seconds: float

    @property
    def exit_code(self) -> int:
        """5 where a job failed, 4 where a limit broke, otherwise 0."""
        found = {outcome.status for outcome in self.outcomes}
        if "failed" in found:
            return PARTLY_FAILED
        return BROKEN_LIMIT if "limit broken" in found else 0

    def as_json(self) -> Json:
        """The document of `--json`, which `--baseline` reads."""
        return {
            "ttcompress": version("ttcompress"),
            "manifest": self.manifest,
            "seconds": self.seconds,
            "exit_code": self.exit_code,
            "jobs": [outcome.as_json() for outcome in self.outcomes],
        }

    def table(self) -> Table:
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
        return Table(columns, tuple(map(_row, self.outcomes)))

    def remarks(self) -> tuple[str, ...]:
        """What the table leaves out: broken limits, errors, and the count of each status."""
        return (
            *(line for outcome in self.outcomes for line in remarks_of(outcome)),
            self._summary(),
        )

    def markdown(self) -> str:
        """A page with a heading, fit for the summary of a CI job."""
        return page(f"{self.manifest}: {self._summary()}", [self.table()], self.remarks()[:-1])

    def _summary(self) -> str:
        found = Counter(outcome.status for outcome in self.outcomes)
        parts = [f"{number} {status}" for status, number in sorted(found.items())]
        cached = sum(outcome.cached for outcome in self.outcomes)
        parts += [f"{cached} from the cache"] if cached else []
        jobs = counted(len(self.outcomes), "job")
        return f"{jobs} in {self.seconds:.1f} s: {', '.join(parts)}"


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
