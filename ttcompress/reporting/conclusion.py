"""Says in one sentence what a compression achieved, and what to do next.

The terminal, Markdown and the HTML page show both in the same words.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from shlex import quote

from ttcompress.model.report import Change, Report, lost_share, times_fewer
from ttcompress.recipe import shipped
from ttcompress.reporting.bench import speed_text
from ttcompress.reporting.losses import LARGE, LOST

NOT_MEASURED = "accuracy not measured: add --task"

MUCH = 0.01
"""A metric that is worse by more than this share is worth another step against the loss."""

LITTLE = 0.002
"""A metric that is worse by less than this share leaves room for a smaller file."""


@dataclass(frozen=True)
class NextStep:
    """What to do next and why, and the command for it."""

    what: str
    command: str

    def __str__(self) -> str:
        return f"next: {self.what}: {self.command}"


def conclude(report: Report, file_bytes: int) -> str:
    """The size, the time if it was measured, the counting metric, and the limits, in a sentence."""
    size = times_fewer(report.comparable_bytes, file_bytes)
    parts = [f"{size:.1f}x smaller" if size >= 1 else f"{1 / size:.1f}x larger"]
    parts += [speed_text(report.bench)] if report.bench else []
    after = [] if report.metrics else [NOT_MEASURED]
    parts += [_change_text(*one) for one in list((report.metrics or {}).items())[:1]]
    if report.limits:
        broken = [limit["name"] for limit in report.limits if not limit["ok"]]
        after.append(f"{' and '.join(broken)} BROKEN" if broken else "limits kept")
    return "; ".join([", ".join(parts), *after])


def next_step(report: Report, file: str = "FILE", model: str = "MODEL") -> NextStep:
    """What these figures suggest.

    Args:
        report: of the compressed model.
        file: its path, for the command.
        model: the path of the checkpoint, which a report does not know.
    """
    effective = report.recipe["effective"]
    task = f"--task {quote(effective.get('task', {}).get('name', 'TASK'))}"
    again = f"ttcompress decompose {quote(model)}{_recipe_options(report)} {task}"
    broken = {limit["name"]: limit["limit"] for limit in report.limits if not limit["ok"]}
    for limit, option in (("min_factor", "factor"), ("max_size", "size")):
        if limit in broken:
            what = f"make {limit}, which is broken, the budget"
            return NextStep(what, f"{again} --{option} {broken[limit]:.12g}")
    lost = [lost_share(change) for change in (report.metrics or {}).values()][:1]
    factor = effective.get("budget", {}).get("factor", report.totals["weights"].compression_factor)
    if "max_drop" in broken or max(lost, default=0) > MUCH or (not lost and _is_lossy(report)):
        # A model that cannot write its own text may still be calibrated on the task's data.
        if not report.calibration and effective.get("calibration", {}).keys() != {"batches"}:
            what = "calibrate, so that errors fall where they matter least"
            return NextStep(what, f"{again} --factor {factor:.3g} --calibrate 24")
        if not report.finetune:
            what = "fine-tune, which recovers most of such a loss"
            command = f"ttcompress finetune {quote(file)} {task} -o tuned.safetensors"
            return NextStep(what, command)
        finer = f"--factor {factor / 2:.3g}" if factor >= 4 else "-r near-lossless"
        what = "spend more bytes, as calibration and fine-tuning were not enough"
        return NextStep(what, f"{again} {finer}")
    if not lost:
        return NextStep("measure the accuracy", f"ttcompress evaluate {quote(file)} {task}")
    if lost[0] < LITTLE:
        what = "try twice the factor, as so little was lost"
        return NextStep(what, f"{again} --factor {2 * factor:.3g}")
    return NextStep("use it", f"ttcompress export {quote(file)} -o model.onnx")


def _change_text(name: str, change: Change) -> str:
    """A metric's change in words.

    >>> loss = {"before": 0.5, "after": 0.51, "drop": 0.01, "higher_is_better": False}
    >>> _change_text("validation_loss", loss)
    'validation loss up 2.00%'
    """
    name, share = name.replace("_", " "), abs(lost_share(change))
    if share == inf:
        return f"{name} {change['before']:.4g} -> {change['after']:.4g}"
    if f"{share:.2%}" == "0.00%":
        return f"{name} unchanged"
    return f"{name} {'up' if change['after'] > change['before'] else 'down'} {share:.2%}"


def _is_lossy(report: Report) -> bool:
    """Whether drift or errors of weights, without a metric, say that accuracy was lost."""
    drift = (value for steps in report.drift.values() for value in steps.values())
    errors = (w.relative_error for w in report.weights if w.role == "recurrent")
    return any(not value <= LARGE for value in drift) or any(error > LOST for error in errors)


def _recipe_options(report: Report) -> str:
    """The options that name the recipe and the format, as far as a report knows them."""
    text, format = report.recipe["text"], report.recipe["effective"].get("format", "auto")
    names = {recipe.path.read_text(encoding="utf-8"): recipe.name for recipe in shipped()}
    name = names.get(text, "RECIPE") if text else "balanced"
    chosen = "" if name == "balanced" else f" -r {name}"
    return chosen + ("" if format == "auto" else f" --format {format}")
