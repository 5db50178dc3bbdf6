"""The paper's claim on both samples: every method at equal bytes, before and after fine-tuning.

    python tests/tools/bench_evidence.py charlm -j 2
    python tests/tools/bench_evidence.py highlighter -j 2 --formats mps,mpo,svd,quantised

Sweeps the sample (recipe small-finetuned, first without its training) and prints a table in
markdown: bytes, metric, times fewer multiply-adds, and how long ONNX Runtime takes on one thread
for 35 steps at batch 1, with float and with int8 products. Artifacts stay in the folder, so that a
second run measures only the times. Trained by the extra `train`, timed by the extra `onnx`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import ttcompress
from ttcompress.recipe import Recipe, find_recipe, load_recipe, recipe_from, with_options
from ttcompress.recipe import effective as in_force
from ttcompress.results.benchmark import DENSE, SMALL
from ttcompress.results.sweep import Figures, Point, Sweep

SAMPLES = Path(__file__).parents[2] / "sample_models"
FORMATS = ("mps", "mpo", "svd", "quantised", "auto")
FACTORS = (4, 8, 16, 32)
TRAINING: dict[str, dict[int, dict[str, Any]]] = {
    "charlm": {4: {"learning_rate": 5.0e-4}, 8: {"learning_rate": 5.0e-4}},
    "highlighter": {factor: {"max_steps": 300} for factor in FACTORS},
}
"""What else than `small-finetuned` says, by factor. Its rate is for factor 16: where less is lost,
it would do harm. Of `highlighter` 300 updates, half an epoch, are enough.
"""


def recipe(sample: str) -> Recipe:
    return with_options(load_recipe(find_recipe("small-finetuned")), task=sample)


def tuned_recipe(sample: str, factor: int) -> Recipe:
    changes = TRAINING[sample].get(factor)
    if changes is None:
        return recipe(sample)  # as written: what `sweep -r small-finetuned` has made is found again
    asked = in_force(recipe(sample))
    return recipe_from(asked | {"finetune": asked["finetune"] | changes})


@dataclass(frozen=True)
class Row:
    """One method at one factor, decomposed alone and trained after it."""

    name: str
    alone: Point
    tuned: Point


def rows(alone: Sweep, tuned: Sequence[Sweep]) -> Iterator[Row]:
    trained = {point.name: point for one in tuned for point in one.points}
    for point in alone.points:
        if point.figures is not None:
            yield Row(point.name, point, trained[point.name])


@cache
def milliseconds(path: Path) -> dict[str, float]:
    """Of each way to run the recurrent layers, all of them together."""
    found = ttcompress.bench(path, batches=(1,), seconds=1.0)
    total: dict[str, float] = {}
    for row in found.rows:
        total[row.run] = total.get(row.run, 0.0) + row.time.median
    return total


def table(sample: str, alone: Sweep, tuned: Sequence[Sweep]) -> Iterator[str]:
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
        *(f"{one[run]:.2f}" if run in one else "-" for run in SMALL[1:3] for one in times),
    ]
    return f"| {row.name} | {' | '.join(cells)} |"


def _figures(point: Point) -> Figures:
    assert point.figures is not None, point.outcome.error
    return point.figures


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("sample", choices=TRAINING)
    parser.add_argument("-j", "--jobs", type=int, default=1)
    parser.add_argument("--formats", default=",".join(FORMATS))
    parser.add_argument("--folder", type=Path, default=Path("evidence"))
    given = parser.parse_args()
    folder, formats = given.folder, given.formats.split(",")

    def swept(name: str, recipe: Recipe, factors: Sequence[int]) -> Sweep:
        return ttcompress.sweep(
            SAMPLES / f"{given.sample}.pt",
            recipe,
            factors=factors,
            formats=formats,
            folder=folder / f"{given.sample}.{name}",
            engine=ttcompress.Engine(jobs=given.jobs, mixed_precision="bf16"),
            on_outcome=lambda done: print(f"{done.name}: {done.status}, {done.seconds:.0f} s"),
        )

    alone = swept("alone", with_options(recipe(given.sample), finetune=False), FACTORS)
    tuned = [swept("tuned", tuned_recipe(given.sample, factor), [factor]) for factor in FACTORS]
    print("\n".join(table(given.sample, alone, tuned)))


if __name__ == "__main__":
    main()
