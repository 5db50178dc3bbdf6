"""Reports enter; what the page says leaves: figures in words, tables, and lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from ttcompress.model.report import Asked, Report, times_fewer
from ttcompress.planning.formats import KEEP, is_whole
from ttcompress.reporting.budget import answers
from ttcompress.reporting.html.pictures import GATE_NAMES
from ttcompress.reporting.report import error_text
from ttcompress.reporting.table import Column, Table

_UNITS = ((1_000_000_000_000, "TB"), (1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB"))


@dataclass(frozen=True)
class Headline:
    """One of the figures a user decides on; `bad` where it condemns the model."""

    label: str
    value: str
    beside: str
    bad: bool = False


def bytes_text(count: int) -> str:
    """Three digits and the unit.

    >>> bytes_text(490_000), bytes_text(3_554_929), bytes_text(812)
    ('490 kB', '3.55 MB', '812 bytes')
    """
    for unit, name in _UNITS:
        if count >= 0.9995 * unit:
            return f"{count / unit:.3g} {name}"
    return f"{count} bytes"


def subtitle(report: Report, file_bytes: int) -> str:
    """The formats, and the budget that they were asked to keep."""
    found = dict.fromkeys(weight.format for weight in report.weights)
    formats = " and ".join(sorted(found, key=is_whole)) or KEEP
    asked = [f"{answer.name} {answer.asked}" for answer in answers(report, file_bytes)]
    return f"{formats} under {' and '.join(asked)}" if asked else formats


def headlines(report: Report, file_bytes: int) -> Iterator[Headline]:
    """Size, accuracy, work and limits, in this order."""
    before = report.source["bytes"]
    smaller = f"{times_fewer(before, file_bytes):.2f}x smaller than {bytes_text(before)}"
    yield Headline("file", bytes_text(file_bytes), smaller)
    yield _accuracy(report)
    model = report.totals["model"]
    fewer = times_fewer(model.multiply_adds_before, model.multiply_adds_after)
    steps = f"{model.multiply_adds_before:,} → {model.multiply_adds_after:,}, whole model"
    yield Headline("multiply-adds", f"{fewer:.2f}x fewer", steps)
    worst = max(report.weights, key=lambda weight: weight.relative_error, default=None)
    if worst is not None:
        yield Headline("largest error", error_text(worst.relative_error), worst.name)
    if report.limits:
        broken = [str(limit["name"]) for limit in report.limits if not limit["ok"]]
        named = ", ".join(broken or (str(limit["name"]) for limit in report.limits))
        yield Headline("limits", "BROKEN" if broken else "kept", named, bool(broken))


def _accuracy(report: Report) -> Headline:
    if not report.metrics:
        return Headline("accuracy", "not measured", "add --task")
    name, found = next(iter(report.metrics.items()))
    share = f" ({found['drop'] / abs(found['before']):.2%})" if found["before"] else ""
    return Headline(
        name,
        f"{found['after']:.4g}",
        f"{found['before']:.4g} before, drop {found['drop']:.3g}{share}",
    )


def errors_table(report: Report) -> Table:
    """Every weight's error, and those of its gates."""
    most = max((len(weight.gate_errors) for weight in report.weights), default=0)
    numbers = {len(weight.gate_errors) for weight in report.weights} - {0}
    numbered = tuple(f"gate {gate + 1}" for gate in range(most))
    names = GATE_NAMES.get(most, numbered) if len(numbers) == 1 else numbered
    columns = (
        Column("weight", name=True),
        Column("error", right=True),
        *(Column(name, right=True) for name in names),
    )
    rows = []
    for weight in report.weights:
        gates = [error_text(error) for error in weight.gate_errors]
        blanks = ["-"] * (most - len(gates))
        rows.append((weight.name, error_text(weight.relative_error), *gates, *blanks))
    return Table(columns, tuple(rows))


def drift_table(drift: Mapping[str, Mapping[str, float]]) -> Table:
    """By layer and step, relative to the outputs before."""
    steps = sorted({int(step) for found in drift.values() for step in found})
    columns = (Column("layer", name=True), *(Column(f"step {step}", right=True) for step in steps))
    rows = (
        (
            layer_name(prefix),
            *(error_text(found[str(s)]) if str(s) in found else "-" for s in steps),
        )
        for prefix, found in drift.items()
    )
    return Table(columns, tuple(rows))


def layer_name(prefix: str) -> str:
    """Of the layer whose tensors' names start so."""
    return prefix.rstrip(".") or "."


def metrics_table(report: Report) -> Table:
    """Before and after; where the original was trained as long, that too."""
    control: Mapping[str, Mapping[str, float]] = report.control or {}
    columns = (
        Column("metric", name=True),
        Column("before", right=True),
        Column("after", right=True),
        Column("drop", right=True),
        *((Column("original trained as long", right=True),) if control else ()),
        Column("better is"),
    )
    rows = (
        (
            name,
            *(f"{found[key]:.4g}" for key in ("before", "after", "drop")),
            *((f"{control[name]['control']:.4g}",) if control else ()),
            "higher" if found["higher_is_better"] else "lower",
        )
        for name, found in (report.metrics or {}).items()
    )
    return Table(columns, tuple(rows))


def kept_table(report: Report) -> Table:
    """Every tensor that was kept as it is, and why."""
    columns = (
        Column("tensor", name=True),
        Column("params", right=True),
        Column("bytes", right=True),
        Column("why"),
    )
    rows = ((e.name, f"{e.params:,}", f"{e.bytes:,}", e.why) for e in report.kept)
    return Table(columns, tuple(rows))


def effective_text(recipe: Asked) -> str:
    """The recipe in force as YAML."""
    text: str = yaml.safe_dump(_plain(recipe["effective"]), sort_keys=False, allow_unicode=True)
    return text


def provenance(report: Report, name: str, file_bytes: int) -> Sequence[tuple[str, str]]:
    """What was made from what, by what."""
    facts = [
        ("file", f"{name}, {file_bytes:,} bytes"),
        ("source", f"{report.source['bytes']:,} bytes"),
        ("source's sha256", str(report.source["sha256"])),
        ("made by", f"ttcompress {report.ttcompress}"),
    ]
    if report.calibration:
        facts.append(("calibrated on", _listed(report.calibration)))
    if report.finetune:
        facts.append(
            ("fine-tuned", f"{report.finetune['steps']} steps on {report.finetune['task']}")
        )
    return facts


def _listed(facts: Mapping[str, Any]) -> str:
    """The plain ones: `positions 840`."""
    return ", ".join(f"{k} {v:,}" for k, v in facts.items() if isinstance(v, int | float))


def _plain(value: Any) -> Any:
    """Lists for tuples, which YAML would tag."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value
