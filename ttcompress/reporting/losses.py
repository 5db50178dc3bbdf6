"""Says how far outputs drift and how far off weights and their worst values are: `loss_remarks`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ttcompress.model.report import BaseReport, Report
from ttcompress.recipe.wording import counted
from ttcompress.reporting.numbers import error_text

LARGE = 0.5
"""A drift, or an error of a single value relative to the weight's largest, that is called large.

On `charlm` without data, at factors of 8, 16 and 32, a drift of 0.42 cost 1.3 % of the metric, 0.68
cost 4.4 %, 0.87 cost 17 % and 0.95 cost 50 %; on `highlighter` drifts up to 0.44 cost at most 0.1 %
and 0.70 cost 0.7 %. Worst values were off by up to 0.30 where at most 1.3 % was lost at a factor of
8, and by 0.59 to 0.77 where 0.7 % to 118 % was. Layers of random, falling and spiky spectra, with
nothing to measure on, drifted by at most 0.25 at a factor of 8, and passed 0.5 at 16 or 32 together
with errors of their weights above 0.6.
"""

LOST = 0.7
"""The relative error of a recurrent weight that has lost half of its energy: it is remarked on."""


def lost_remarks(report: BaseReport) -> Iterator[str]:
    """A line if a recurrent weight has lost most of what it was, or is expected to."""
    if isinstance(report, Report) and report.finetune is not None:
        return  # training moves weights far from the original's, and loses nothing by it
    lost = [w for w in report.weights if w.role == "recurrent" and w.relative_error > LOST]
    if not lost:
        return
    worst = max(lost, key=lambda weight: weight.relative_error)
    others = f", and {counted(len(lost) - 1, 'other recurrent weight')} too" if lost[1:] else ""
    done = report.recipe["effective"]
    cures = [
        "give the recurrent weights more bytes",
        *([] if done.get("calibration") else ["calibrate on data (--calibrate or --data)"]),
        *([] if done.get("finetune") else ["fine-tune (--finetune)"]),
    ]
    yield (
        f"{worst.name} has an error of {error_text(worst.relative_error)}, above {LOST}{others}: "
        f"half of what it holds is lost. {', or '.join(cures).capitalize()}."
    )


def loss_remarks(report: Report) -> Iterator[str]:
    """A line on the drift, one on the worst value, and one if either of them is large."""
    drift, errors = _drifts(report), _worst_elements(report)
    if drift:
        prefix = max(drift, key=drift.__getitem__)
        yield f"drift: {_drift_text(prefix, report.drift[prefix], len(drift))}"
    if errors:
        name = max(errors, key=errors.__getitem__)
        yield f"worst element: off by {error_text(errors[name])} of the largest value in {name}"
    yield from large_remarks(report)


def large_remarks(report: Report) -> Iterator[str]:
    """A line if the drift or the worst value usually costs accuracy, and that was not measured."""
    if report.metrics is not None:
        return
    found = {"drift": _drifts(report), "worst element": _worst_elements(report)}
    large = [name for name, values in found.items() if any(not v <= LARGE for v in values.values())]
    if large:
        what, verb = " and ".join(large), "are" if len(large) > 1 else "is"
        yield f"The {what} {verb} above {LARGE}, which usually costs accuracy."


def _drifts(report: Report) -> dict[str, float]:
    """The largest drift of each layer, by its prefix."""
    return {prefix: max(steps.values()) for prefix, steps in report.drift.items() if steps}


def _worst_elements(report: Report) -> dict[str, float]:
    """The error of the worst value of each weight for which it is known."""
    errors = {weight.name: weight.worst_element_error for weight in report.weights}
    return {name: error for name, error in errors.items() if error is not None}


def _drift_text(prefix: str, steps: Mapping[str, float], layers: int) -> str:
    """The drift of one layer in words.

    >>> _drift_text("lstm.", {"1": 0.1, "10": 0.25}, 1)
    'outputs of lstm differ by 0.1000 at step 1 and 0.2500 at step 10, relative to their norm'
    """
    found = [f"{error_text(drift)} at step {step}" for step, drift in steps.items()]
    listed = " and ".join([", ".join(found[:-1]), found[-1]] if len(found) > 1 else found)
    most = "; no other layer drifts more" if layers > 1 else ""
    layer = prefix.rstrip(".") or "the layer"
    return f"outputs of {layer} differ by {listed}, relative to their norm{most}"
