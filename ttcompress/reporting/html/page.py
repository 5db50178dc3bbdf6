"""Makes the HTML page about compressed models: fills the template `page.html` with Jinja2."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ttcompress.model.report import Report
from ttcompress.reporting.bench import bench_remarks, bench_tables
from ttcompress.reporting.html import content, pictures
from ttcompress.reporting.html.palette import style_sheet
from ttcompress.reporting.numbers import bytes_text, error_text
from ttcompress.reporting.report import (
    files_table,
    metrics_table,
    report_remarks,
    totals_table,
    weights_table,
)


@dataclass(frozen=True)
class Figure:
    """A picture, and the line above it."""

    caption: str
    svg: Markup


def make_page(reports: Sequence[tuple[str, Report, int]]) -> str:
    """The page; see `ttcompress.reporting.html.report_page`."""
    environment = Environment(
        loader=PackageLoader("ttcompress.reporting.html", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    names = [name for name, _, _ in reports]
    return environment.get_template("page.html").render(
        title=names[0] if len(names) == 1 else f"{len(names)} compressed models",
        colours=Markup(style_sheet()),
        comparison=_comparison(reports) if len(names) > 1 else None,
        models=[_model(*entry) for entry in reports],
    )


def _comparison(reports: Sequence[tuple[str, Report, int]]) -> dict[str, object]:
    bars = [
        pictures.Bar(name, bytes_text(size), report.source["bytes"], size)
        for name, report, size in reports
    ]
    svg = pictures.sizes("Bytes of the source and of each file", bars)
    return {"table": files_table(reports), "sizes": Figure("Source and file", Markup(svg))}


def _model(name: str, report: Report, file_bytes: int) -> dict[str, object]:
    """The values of the template for one file."""
    return {
        "name": name,
        "subtitle": content.subtitle(report, file_bytes),
        "headlines": list(content.headlines(report, file_bytes)),
        "remarks": report_remarks(report, file_bytes),
        "weights": weights_table(report),
        "totals": totals_table(report.totals),
        "pictures": list(_pictures(report)),
        "errors_table": content.errors_table(report),
        "spectra": list(_spectra(report)),
        "drift_table": content.drift_table(report.drift),
        "metrics": metrics_table(report),
        "latency": next(iter(bench_tables(report.bench)), None),
        "latency_remarks": bench_remarks(report.bench),
        "kept": content.kept_table(report),
        "recipe": report.recipe["text"],
        "effective": content.effective_text(report.recipe),
        "provenance": list(content.provenance(report, name, file_bytes)),
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
        for number, cut in enumerate(weight.spectrum):
            where = f", cut {number + 1} of {len(weight.spectrum)}"
            caption = weight.name + (where if len(weight.spectrum) > 1 else "")
            svg = pictures.spectrum(f"Singular values of {caption}, rank {cut.rank}", cut)
            yield Figure(caption, Markup(svg))
