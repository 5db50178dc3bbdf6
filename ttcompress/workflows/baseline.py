"""Compares the outcomes of a batch with those of an earlier one, read from its JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from ttcompress.errors import InputError, check_ordinary, unreadable
from ttcompress.model.report import Verdict
from ttcompress.recipe.manifest import Tolerance
from ttcompress.results.outcome import Outcome
from ttcompress.system.json import read_json
from ttcompress.workflows.limits import verdict

MAX_BYTES = 100_000_000
"""About fifty thousand jobs."""

Baseline = Mapping[str, Outcome]
"""Earlier outcomes by the name of their file."""


def read_baseline(path: Path) -> Baseline:
    """Read the `--json` output of an earlier batch.

    Raises:
        InputError: there is no such file, or it is not the JSON of a batch.
        TTCompressError: it cannot be read.
    """
    check_ordinary(path, "Write a baseline with --json.")
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise ValueError(f"over {MAX_BYTES:,} bytes")
        document = read_json(raw)
        found = map(Outcome.from_json, document["jobs"])
        return {outcome.file: outcome for outcome in found}
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such baseline. Write one with --json.") from error
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: is not the JSON of a batch ({error!r}). Write one with --json."
        ) from error


def judge_against(baseline: Baseline | None, outcome: Outcome, allowed: Tolerance) -> Outcome:
    """Add limits for size and metric to an outcome, taken from the same job of the baseline.

    A job that failed, then or now, has nothing to compare.
    """
    before = (baseline or {}).get(outcome.file)
    if before is None or before.error or outcome.error:
        return outcome
    return replace(outcome, limits=(*outcome.limits, *_verdicts(before, outcome, allowed)))


def _verdicts(before: Outcome, now: Outcome, allowed: Tolerance) -> Iterator[Verdict]:
    assert before.bytes_after is not None and now.bytes_after is not None  # neither failed
    most = before.bytes_after + allowed.size.most(before.bytes_after)
    yield verdict("baseline_size", most, now.bytes_after, now.bytes_after <= most)
    if before.counting is None or now.counting is None or before.counting[0] != now.counting[0]:
        return
    (_, then), (_, found) = before.counting, now.counting
    sign = 1 if found["higher_is_better"] else -1
    worst = then["after"] - sign * allowed.metric.most(then["after"])
    yield verdict("baseline_metric", worst, found["after"], sign * (found["after"] - worst) >= 0)
