"""Makes the HTML pages: fills the template `page.html` with Jinja2."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from ttcompress.model.report import Report
from ttcompress.reporting.batch import batch_remarks, batch_table
from ttcompress.reporting.bench import bench_remarks, bench_tables, dense_and_compressed
from ttcompress.reporting.conclusion import conclude, next_step
from ttcompress.reporting.html import content, pictures
from ttcompress.reporting.html.glossary import explain
from ttcompress.reporting.html.palette import style_sheet
from ttcompress.reporting.numbers import bytes_text, error_text
from ttcompress.reporting.report import (
    files_table,
    metrics_table,
    note_remarks,
    totals_table,
    weights_table,
)
from ttcompress.reporting.table import Table
from ttcompress.results.batch import BatchResult

FAILURES = ("failed", "limit broken", "BROKEN")
"""How the cells begin that stand out."""


class Entry(NamedTuple):
    """A heading, the file below it, its report, and its size in bytes."""

    name: str
    file: str
    report: Report
    bytes: int


@dataclass(frozen=True)
class Figure:
    """A picture, and the line above it."""

    caption: str
    svg: Markup


@dataclass(frozen=True)
class Overview:
    """What stands on top of a page about several models: a table with a link for each row."""

    title: str
    heading: str
    table: Table
    links: Sequence[str | None]
    sizes: Figure | None
    lead: str = ""
    remarks: Sequence[str] = ()


@dataclass(frozen=True)
class Script:
    """The only script that the page's policy lets run, and its hash for that policy."""

    text: Markup
    hash: str


def make_report_page(reports: Sequence[tuple[str, Report, int]]) -> str:
    """The page; see `ttcompress.reporting.html.report_page`."""
    entries = [Entry(name, name, report, size) for name, report, size in reports]
    if len(reports) == 1:
        return _fill(entries[0].name, None, entries)
    title = f"{len(reports)} compressed models"
    links = [_anchor(place) for place in range(len(reports))]
    overview = Overview(title, "All files", files_table(reports), links, _sizes(entries))
    return _fill(title, overview, entries)


def make_batch_page(result: BatchResult, reports: Sequence[tuple[Report, int] | None]) -> str:
    """The page; see `ttcompress.reporting.html.batch_page`."""
    entries: list[Entry] = []
    links: list[str | None] = []
    for outcome, found in zip(result.outcomes, reports, strict=True):
        links.append(None if found is None else _anchor(len(entries)))
        entries += [] if found is None else [Entry(outcome.name, outcome.file, *found)]
    *problems, lead = batch_remarks(result)
    sizes = _sizes(entries) if entries else None
    table = batch_table(result)
    overview = Overview(result.manifest, "All jobs", table, links, sizes, lead, problems)
    return _fill(result.manifest, overview, entries)


def _fill(title: str, overview: Overview | None, reports: Sequence[Entry]) -> str:
    environment = Environment(
        loader=PackageLoader("ttcompress.reporting.html", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"breakable": _breakable, "marked": _marked}
    environment.tests["bad"] = lambda cell: cell.startswith(FAILURES)
    environment.globals["explain"] = explain
    return environment.get_template("page.html").render(
        title=title,
        colours=Markup(style_sheet()),
        overview=overview,
        script=_sorting(),
        level=1 if overview is None else 2,
        models=list(map(_model, reports)),
    )


def _anchor(place: int) -> str:
    return f"model-{place + 1}"


def _breakable(text: str) -> Markup:
    """A name that may be broken behind its dots and underscores."""
    escaped = str(escape(text))
    for letter in "._":
        escaped = escaped.replace(letter, f"{letter}<wbr>")
    return Markup(escaped)


def _marked(text: str) -> Markup:
    """A remark, with what it puts between backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _sorting() -> Script:
    text = files("ttcompress.reporting.html").joinpath("sort.js").read_text(encoding="utf-8")
    return Script(Markup(text), f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}")


def _sizes(reports: Sequence[Entry]) -> Figure:
    bars = [
        pictures.Bar(one.name, bytes_text(one.bytes), one.report.comparable_bytes, one.bytes)
        for one in reports
    ]
    svg = pictures.sizes("Bytes of the source, without what was left out, and of each file", bars)
    return Figure("Source and file", Markup(svg))


def _model(entry: Entry) -> dict[str, object]:
    """The values of the template for one file."""
    name, file, report, file_bytes = entry
    return {
        "name": name,
        "conclusion": conclude(report, file_bytes),
        "next": next_step(report, file),
        "subtitle": content.subtitle(report, file_bytes),
        "headlines": list(content.headlines(report, file_bytes)),
        "remarks": note_remarks(report, file_bytes),
        "weights": weights_table(report),
        "totals": totals_table(report.totals),
        "pictures": list(_pictures(report)),
        "errors_table": content.errors_table(report),
        "spectra": list(_spectra(report)),
        "drift_table": content.drift_table(report.drift),
        "metrics": metrics_table(report),
        "limits": content.limits_table(report),
        "latency": next(iter(bench_tables(report.bench)), None),
        "latencies": list(_latencies(report)),
        "latency_remarks": bench_remarks(report.bench),
        "kept": content.kept_table(report),
        "left_out": content.left_out_table(report),
        "recipe": report.recipe["text"],
        "effective": content.effective_text(report.recipe),
        "provenance": list(content.provenance(report, file, file_bytes)),
    }


def _pictures(report: Report) -> Iterator[Figure]:
    if report.weights:
        bars = [
            pictures.Bar(
                weight.name,
                f"{bytes_text(weight.bytes_before)} → {bytes_text(weight.bytes_after)}",
                weight.bytes_before,
                weight.bytes_after,
            )
            for weight in report.weights
        ]
        svg = pictures.sizes("Bytes of each weight before and after", bars)
        yield Figure("Bytes by weight, before and after", Markup(svg))
        figures = [error_text(weight.relative_error) for weight in report.weights]
        svg = pictures.errors("Relative error of each weight and gate", report.weights, figures)
        yield Figure("Relative error by weight and gate", Markup(svg))
    if report.drift:
        layers = {content.layer_name(prefix): found for prefix, found in report.drift.items()}
        svg = pictures.drift("Drift over the steps", layers)
        yield Figure("Hidden-state drift, relative, over the steps", Markup(svg))


def _spectra(report: Report) -> Iterator[Figure]:
    for weight in report.weights:
        bits = 8 * weight.bytes_after / max(weight.params_after, 1)
        for number, cut in enumerate(weight.spectrum):
            where = f", cut {number + 1} of {len(weight.spectrum)}"
            caption = weight.name + (where if len(weight.spectrum) > 1 else "")
            title = f"Singular values of {caption}, rank {cut.rank}, {bits:.1f} bits a value"
            yield Figure(caption, Markup(pictures.spectrum(title, cut, bits)))


def _latencies(report: Report) -> Iterator[Figure]:
    for layer, (dense, compressed) in dense_and_compressed(report.bench).items():
        svg = pictures.latency(f"Milliseconds of {layer} by batch size", dense, compressed)
        yield Figure(f"{layer}: milliseconds by batch size", Markup(svg))
