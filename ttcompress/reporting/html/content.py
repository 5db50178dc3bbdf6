"""Chooses what the page says of a report: headlines, tables, and the facts at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import yaml

from ttcompress.model.report import RecipeUsed, Report, Verdict, WeightReport, lost_share
from ttcompress.planning.formats import KEEP, is_whole
from ttcompress.reporting.budget import answers
from ttcompress.reporting.html.pictures import gate_names
from ttcompress.reporting.numbers import bytes_text, error_text, limit_figure, times_text
from ttcompress.reporting.table import Column, Table, tabulate
from ttcompress.system.json import plain


@dataclass(frozen=True)
class Headline:
    """A figure that a user decides by; `bad` if it speaks against the model."""

    label: str
    value: str
    beside: str
    bad: bool = False


def subtitle(report: Report, file_bytes: int) -> str:
    """The formats, and the budget they were chosen under."""
    found = dict.fromkeys(weight.format for weight in report.weights)
    formats = " and ".join(sorted(found, key=is_whole)) or KEEP
    asked = [f"{answer.name} {answer.asked}" for answer in answers(report, file_bytes)]
    return f"{formats} under {' and '.join(asked)}" if asked else formats


def headlines(report: Report, file_bytes: int) -> Iterator[Headline]:
    """Size, accuracy, work and limits, in this order."""
    before = report.comparable_bytes
    smaller = f"{times_text(before, file_bytes)} smaller than {bytes_text(before)}"
    yield Headline("file", bytes_text(file_bytes), smaller)
    if report.metrics:
        name, found = next(iter(report.metrics.items()))
        share = f" ({lost_share(found):.2%})" if found["before"] else ""
        dropped = f"{found['before']:.4g} before, drop {found['drop']:.3g}{share}"
        yield Headline(name, f"{found['after']:.4g}", dropped)
    else:
        yield Headline("accuracy", "not measured", "add --task")
    model = report.totals["model"]
    steps = f"{model.multiply_adds_before:,} → {model.multiply_adds_after:,}, whole model"
    yield Headline("multiply-adds", f"{model.fewer_multiply_adds:.2f}x fewer", steps)
    worst = max(report.weights, key=lambda weight: weight.relative_error, default=None)
    if worst is not None:
        yield Headline("largest error", error_text(worst.relative_error), worst.name)
    drifts = ((v, step, layer) for layer, s in report.drift.items() for step, v in s.items())
    drift = max(drifts, default=None)
    if drift is not None:
        where = f"{layer_name(drift[2])}, step {drift[1]}"
        yield Headline("drift", error_text(drift[0]), where)
    if report.limits:
        broken = [limit["name"] for limit in report.limits if not limit["ok"]]
        named = ", ".join(broken or (limit["name"] for limit in report.limits))
        yield Headline("limits", "BROKEN" if broken else "kept", named, bool(broken))


def limits_table(report: Report) -> Table:
    """Every limit, the value reached, and the verdict."""
    cells: dict[Column, Callable[[Verdict], object]] = {
        Column("limit", name=True): lambda one: one["name"],
        Column("allowed", right=True): lambda one: limit_figure(one["limit"]),
        Column("reached", right=True): lambda one: limit_figure(one["value"]),
        Column("verdict"): lambda one: "kept" if one["ok"] else "BROKEN",
    }
    return tabulate(report.limits, cells)


def errors_table(report: Report) -> Table:
    """Every weight's error, those of its gates, and that of its worst element."""

    def gate_error(gate: int, weight: WeightReport) -> str:
        errors = weight.gate_errors
        return error_text(errors[gate]) if gate < len(errors) else "-"

    def worst_element(weight: WeightReport) -> str | None:
        error = weight.worst_element_error
        return None if error is None else error_text(error)

    names = gate_names(report.weights)
    return tabulate(
        report.weights,
        {
            Column("weight", name=True): lambda weight: weight.name,
            Column("error", right=True): lambda weight: error_text(weight.relative_error),
            **{Column(n, right=True): partial(gate_error, gate) for gate, n in enumerate(names)},
            Column("worst element", right=True): worst_element,
        },
    )


def drift_table(drift: Mapping[str, Mapping[str, float]]) -> Table:
    """The drift by layer and step, relative to the original outputs."""
    steps = sorted({int(step) for found in drift.values() for step in found})
    columns = (Column("layer", name=True), *(Column(f"step {step}", right=True) for step in steps))
    rows = []
    for prefix, found in drift.items():
        cells = (error_text(found[str(s)]) if str(s) in found else "-" for s in steps)
        rows.append((layer_name(prefix), *cells))
    return Table(columns, tuple(rows))


def layer_name(prefix: str) -> str:
    """The name of the layer whose tensors have this prefix."""
    return prefix.rstrip(".") or "."


def kept_table(report: Report) -> Table:
    """Every tensor that was kept unchanged, and why."""
    return tabulate(
        report.kept,
        {
            Column("tensor", name=True): lambda one: one.name,
            Column("params", right=True): lambda one: one.params,
            Column("bytes", right=True): lambda one: one.bytes,
            Column("why"): lambda one: one.why,
        },
    )


def left_out_table(report: Report) -> Table:
    """What the source's file held and the result does not."""
    return tabulate(
        report.left_out,
        {
            Column("key", name=True): lambda one: one.key,
            Column("tensors", right=True): lambda one: one.tensors,
            Column("bytes", right=True): lambda one: one.bytes,
            Column("what"): lambda one: one.why,
        },
    )


def effective_text(recipe: RecipeUsed) -> str:
    """The recipe with every key in effect, as YAML."""
    text: str = yaml.safe_dump(plain(recipe["effective"]), sort_keys=False, allow_unicode=True)
    return text


def provenance(report: Report, name: str, file_bytes: int) -> Iterator[tuple[str, str]]:
    """Where the file comes from: its source, version, data and training."""
    yield "file", f"{name}, {file_bytes:,} bytes"
    yield "source", f"{report.source['bytes']:,} bytes"
    yield "source's sha256", report.source["sha256"]
    yield "made by", f"ttcompress {report.ttcompress}"
    if report.calibration:
        numbers = {k: v for k, v in report.calibration.items() if isinstance(v, int | float)}
        yield "calibrated on", ", ".join(f"{key} {value:,}" for key, value in numbers.items())
    if report.finetune:
        yield "fine-tuned", f"{report.finetune['steps']} steps on {report.finetune['task']}"
