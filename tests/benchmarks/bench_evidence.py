"""The paper's claim on both samples: every method at equal bytes, before and after fine-tuning.

    python tests/benchmarks/bench_evidence.py charlm -j 2
    python tests/benchmarks/bench_evidence.py highlighter -j 2

Sweeps the sample twice (recipe small-finetuned, first without its training) and prints a table in
markdown: bytes, metric, times fewer multiply-adds, and how long ONNX Runtime takes on one thread
for 35 steps at batch 1, with float and with int8 products. Artifacts stay in the folder, so that a
second run measures only the times. Trained by the extra `train`, timed by the extra `onnx`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import ttcompress
from ttcompress.bench.model import DENSE, SMALL
from ttcompress.recipe import Recipe, find_recipe, load_recipe, recipe_from, with_options
from ttcompress.recipe import effective as in_force
from ttcompress.sweep.front import Figures, Point, Sweep

SAMPLES = Path(__file__).parents[2] / "sample_models"
FORMATS = ("mps", "mpo", "svd", "quantised", "auto")
FACTORS = (4, 8, 16, 32)
MOST_STEPS = {"charlm": None, "highlighter": 300}
"""An epoch of `highlighter` is 5,000 updates, of which a few hundred are enough."""


def recipes(sample: str) -> tuple[Recipe, Recipe]:
    """As decomposed alone, and trained after it."""
    tuned = with_options(load_recipe(find_recipe("small-finetuned")), task=sample)
    if (most := MOST_STEPS[sample]) is not None:
        asked = in_force(tuned)
        tuned = recipe_from(asked | {"finetune": asked["finetune"] | {"max_steps": most}})
    return with_options(tuned, finetune=False), tuned


@dataclass(frozen=True)
class Row:
    """One method at one factor, decomposed alone and trained after it."""

    name: str
    alone: Point
    tuned: Point


def rows(alone: Sweep, tuned: Sweep) -> Iterator[Row]:
    for one, two in zip(alone.points, tuned.points, strict=True):
        if one.figures is not None:
            yield Row(one.name, one, two)


@cache
def milliseconds(path: Path) -> dict[str, float]:
    """Of each way to run the recurrent layers, all of them together."""
    found = ttcompress.bench(path, batches=(1,), seconds=1.0)
    total: dict[str, float] = {}
    for row in found.rows:
        total[row.run] = total.get(row.run, 0.0) + row.time.median
    return total


def table(sample: str, alone: Sweep, tuned: Sweep) -> Iterator[str]:
    metric, some = alone.metric, next(rows(alone, tuned))
    yield (
        f"| `{sample}` | bytes | {metric} alone | tuned | fewer multiply-adds alone | tuned "
        "| ms alone | tuned | int8 ms alone | tuned |"
    )
    yield "|---|" + "--:|" * 9
    times = milliseconds(some.alone.path)
    slow, fast = (f"{times[run]:.2f}" for run in DENSE[1:])
    worth = f"{alone.dense.metric:.4f}"
    yield f"| dense | {alone.dense.bytes:,} | {worth} | - | 1.00 | - | {slow} | - | {fast} | - |"
    for row in rows(alone, tuned):
        yield _line(alone, row)


def _line(found: Sweep, row: Row) -> str:
    pair = [_figures(point) for point in (row.alone, row.tuned)]
    times = [milliseconds(point.path) for point in (row.alone, row.tuned)]
    cells = [
        f"{pair[1].bytes:,}",
        *(f"{one.metric:.4f}" for one in pair),
        *(f"{found.dense.multiply_adds / one.multiply_adds:.2f}" for one in pair),
        *(f"{one[run]:.2f}" if run in one else "-" for run in SMALL[1:] for one in times),
    ]
    return f"| {row.name} | {' | '.join(cells)} |"


def _figures(point: Point) -> Figures:
    assert point.figures is not None, point.outcome.error
    return point.figures


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("sample", choices=MOST_STEPS)
    parser.add_argument("-j", "--jobs", type=int, default=1)
    parser.add_argument("--formats", default=",".join(FORMATS))
    parser.add_argument("--folder", type=Path, default=Path("evidence"))
    given = parser.parse_args()
    engine = ttcompress.Engine(jobs=given.jobs, mixed_precision="bf16")
    alone, tuned = (
        ttcompress.sweep(
            SAMPLES / f"{given.sample}.pt",
            recipe,
            factors=FACTORS,
            formats=given.formats.split(","),
            folder=given.folder / f"{given.sample}.{name}",
            engine=engine,
            told=lambda outcome: print(
                f"{outcome.name}: {outcome.status}, {outcome.seconds:.0f} s"
            ),
        )
        for name, recipe in zip(("alone", "tuned"), recipes(given.sample), strict=True)
    )
    print("\n".join(table(given.sample, alone, tuned)))


if __name__ == "__main__":
    main()
