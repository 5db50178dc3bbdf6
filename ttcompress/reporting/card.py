"""Writes a model card: the page of a model on the hub, with what the hub reads in its front matter.

The keys are those of the hub's documentation of model cards; metrics are in its form `model-index`.
"""

from __future__ import annotations

import re
from math import isfinite
from pathlib import PureWindowsPath

import yaml

from ttcompress.model.report import Json, Report
from ttcompress.planning.formats import decomposing
from ttcompress.reporting.conclusion import NOT_MEASURED, conclude
from ttcompress.reporting.markdown import page
from ttcompress.reporting.report import metrics_table, note_remarks, totals_table, weights_table

LIBRARY = "ttcompress"


def model_card(
    report: Report, file_bytes: int, name: str, place: str, base_model: str | None = None
) -> str:
    """A model card: front matter, conclusion, tables, recipe, and two commands to use the model.

    Args:
        report: of the compressed model.
        file_bytes: the size of its file.
        name: what the model is called.
        place: its file or address, for the commands.
        base_model: the original's repository, `user/name`, if it is on the hub.
    """
    front = yaml.safe_dump(
        _front_matter(report, name, base_model), sort_keys=False, allow_unicode=True
    )
    tables = [
        *([metrics_table(report)] if report.metrics else []),
        totals_table(report.totals),
        weights_table(report),
    ]
    lead = conclude(report, file_bytes).replace(NOT_MEASURED, NOT_MEASURED.partition(":")[0])
    body = page(name, tables, note_remarks(report, file_bytes), lead=f"{lead}.")
    parts = [f"---\n{front}---\n\n{body}", _recipe(report), _use(report, place)]
    return "\n".join(parts)


def _front_matter(report: Report, name: str, base_model: str | None) -> Json:
    formats = dict.fromkeys(weight.format for weight in report.weights)
    trains = [format for format in formats if format in decomposing()]
    front: Json = {
        "library_name": LIBRARY,
        "tags": [LIBRARY, "compression", *(["tensor-train"] if trains else []), *trains],
    }
    if base_model is not None:
        front |= {"base_model": base_model, "base_model_relation": "quantized"}
    if metrics := _metrics(report):
        task = report.recipe["effective"].get("task", {}).get("name", "unlabelled inputs")
        task = PureWindowsPath(task).name  # a folder of its writer, on any system, helps nobody
        result = {
            "task": {"type": task},
            "dataset": {"type": task, "name": f"held-out data of {task}"},
            "metrics": metrics,
        }
        front["model-index"] = [{"name": name, "results": [result]}]
    return front


def _metrics(report: Report) -> list[Json]:
    """The metrics after compression, the counting one first."""
    return [
        {"type": name, "name": name.replace("_", " "), "value": found["after"]}
        for name, found in (report.metrics or {}).items()
        if isfinite(found["after"])
    ]


def _recipe(report: Report) -> str:
    text = report.recipe["text"] or yaml.safe_dump(
        report.recipe["effective"], sort_keys=False, allow_unicode=True
    )
    return f"## Recipe\n\n{_fenced('yaml', text)}"


def _use(report: Report, place: str) -> str:
    quoted = f'"{place}"' if re.search(r"[^\w@%+=:,./-]", place) else place  # as any shell reads it
    commands = (
        f"pip install '{LIBRARY}[hub]'\n"
        f"ttcompress report {quoted}\n"
        f"ttcompress restore {quoted} -o dense.pt\n"
    )
    return (
        "## Use\n\n"
        f"{_fenced('sh', commands)}\n"
        "The first command shows what was done; the second writes an ordinary state dict for the "
        f"original code.\nMade by {LIBRARY} {report.ttcompress} from the checkpoint with the "
        f"SHA-256 `{report.source['sha256']}`.\n"
    )


def _fenced(language: str, text: str) -> str:
    """A block of code behind a fence that is not in it."""
    fence = "`" * (1 + max(2, *map(len, re.findall("`+", text)), 0))
    return f"{fence}{language}\n{text.rstrip()}\n{fence}\n"
