"""A report whose every figure is set by hand, with everything in it that a page can show."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ttcompress.model.report import CutSpectrum, KeptReport, Report, Totals, WeightReport
from ttcompress.results.batch import BatchResult
from ttcompress.results.outcome import Outcome

HOSTILE = '$\\frac$ <script>alert("x")</script> & <b> \u6f22'


@pytest.fixture(scope="session")
def weight() -> WeightReport:
    return WeightReport(
        name="lstm.weight_hh_l0",
        names=("lstm.weight_hh_l0",),
        role="recurrent",
        format="mps",
        row_modes=(4, 8),
        column_modes=(8,),
        ranks=(4, 5),
        store="int4",
        params_before=256,
        params_after=200,
        bytes_before=1024,
        bytes_after=128,
        multiply_adds_before=256,
        multiply_adds_after=64,
        relative_error=0.25,
        gate_errors=(0.1, 0.2, 0.3, 0.4),
        spectrum=(
            CutSpectrum((0, 1, 2, 3), (2.0, 1.0, 0.5, 0.25), 4),
            CutSpectrum((0, 2, 4, 5, 7), (3.0, 2.0, 1.0, 0.5, 0.1), 5),
        ),
        notes=(),
    )


@pytest.fixture(scope="session")
def full_report(weight: WeightReport) -> Report:
    dense = replace(
        weight, name="head.weight", format="dense", ranks=(), gate_errors=(), spectrum=()
    )
    bench_row = {"part": "lstm", "batch": 8, "run": "torch dense", "speed_up": 0.75, "bytes": 99}
    bench_row["time"] = {"median": 1.5, "low": 1.0, "high": 2.0, "calls": 9}
    time = {"median": 1.2, "low": 1.1, "high": 1.3, "calls": 9}
    return Report(
        ttcompress="0.1.0",
        source={"sha256": "ab" * 32, "bytes": 6000},
        recipe={"text": "# mine\nversion: 1\n", "effective": {"budget": {"factor": 7.5}}},
        totals={
            "weights": Totals(256, 200, 1024, 128, 256, 64),
            "model": Totals(1256, 1200, 5024, 4128, 1256, 628),
        },
        weights=(weight, dense),
        kept=(KeptReport("head.bias", 60, 240, "not a weight"),),
        notes=("a note",),
        metrics={
            "perplexity": {"before": 4.0, "after": 5.0, "drop": 1.0, "higher_is_better": False}
        },
        drift={
            "lstm.": {"1": 0.02, "10": 0.05, "100": 0.0625},
            "other.": {"1": 0.01, "10": 0.02},
        },
        limits=({"name": "max_size", "limit": 4000, "value": 4800, "ok": False},),
        finetune={"task": "charlm", "steps": 12, "settings": {}},
        control={"perplexity": {"control": 3.5, "after": 5.0, "drop": 1.5}},
        calibration={"positions": 840},
        bench={
            "steps": 35,
            "threads": 1,
            "clock": "thread",
            "rows": [
                bench_row,
                bench_row | {"run": "c", "speed_up": 1.25, "time": time},
                bench_row | {"batch": 1, "run": "c", "speed_up": 0.5, "time": time},
            ],
            "remarks": ["lstm, batch 8: 1.3x SLOWER"],
        },
    )


@pytest.fixture(scope="session")
def batch(full_report: Report) -> BatchResult:
    """A job that broke a limit, one that is done, and one that failed."""
    limits, metrics = full_report.limits, full_report.metrics
    first = Outcome("b.st", "b", "small", 1.5, 1, False, 6000, 4800, 8.01, metrics, limits)
    done = replace(first, file="a.st", model="a", bytes_after=998, factor=12.3, limits=())
    error = "PlanError: `lstm.weight` of c.pt is <b>out of reach</b>"
    failed = Outcome("c.st", "c", "small", error=error, kind="PlanError")
    return BatchResult("models.yaml", (first, done, failed), 3.25)


@pytest.fixture(scope="session")
def hostile_report(full_report: Report, weight: WeightReport) -> Report:
    """Names that would break out of HTML, out of SVG, or into a formula."""
    return replace(
        full_report,
        recipe={"text": f"# {HOSTILE}\n", "effective": {"task": {"name": HOSTILE}}},
        weights=(replace(weight, name=HOSTILE, notes=(HOSTILE,)),),
        kept=(KeptReport(HOSTILE, 1, 4, HOSTILE),),
        drift={HOSTILE: {"1": 0.5}, HOSTILE * 9: {"1": 0.5}},
        metrics={HOSTILE: {"before": 0.0, "after": 1.0, "drop": 1.0, "higher_is_better": True}},
        control=None,
    )
