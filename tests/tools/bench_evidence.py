"""The evidence: every method at equal bytes, alone, calibrated and trained, and the time to run it.

    python tests/tools/bench_evidence.py charlm -j 2
    python tests/tools/bench_evidence.py plays.pt --task '{name: language-model, text: input.txt}'

Sweeps a sample model, or any checkpoint with its task, once for each stage, and prints a table in
Markdown; a method that cannot have a factor has no row. The stage "without labels" trains on text
that the model itself writes: where a model cannot, a line says why and the stage has no column.
Times are of one thread and batch 1, 35 steps of all recurrent layers, of the calibrated model.
Artifacts stay in the folder, so that a run that was cut off goes on, and a second one measures only
the times. `--stages`, `--formats`, `--factors` and `--updates` make less of it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

import ttcompress
from ttcompress.checkpoint import open_checkpoint
from ttcompress.errors import RecipeError
from ttcompress.results.benchmark import DENSE, SMALL
from ttcompress.results.sweep import Sweep
from ttcompress.tasks.synthetic import Synthetic
from ttcompress.workflows.methods import CODEC

SAMPLES = Path(__file__).parents[2] / "sample_models"
FORMATS = ("mps", "mpo", "svd", "quantised", "auto", CODEC)
FACTORS = (4, 8, 16, 32)
ALONE, CALIBRATED, UNLABELLED = "alone", "calibrated", "without labels"
STAGES = (ALONE, CALIBRATED, "tuned", UNLABELLED)
RUNS = {"C int8": SMALL[4], "ONNX": SMALL[1], "ONNX int8": SMALL[2], "torch": SMALL[0]}


def recipe(task: Any, stage: str, updates: int) -> dict[str, Any]:
    training = {"epochs": 1000, "max_steps": updates}
    keys: Mapping[str, dict[str, Any]] = {
        ALONE: {},
        CALIBRATED: {"calibration": {"batches": 24}},
        "tuned": {"calibration": {"batches": 24}, "finetune": training},
        UNLABELLED: {
            "calibration": {"synthetic": 64},
            "finetune": {**training, "data": "synthetic"},
        },
    }
    return {"version": 1, "budget": {"factor": 8}, "task": task, **keys[stage]}


def left_out(path: Path, stage: str) -> str | None:
    """Why a model cannot have a stage, or None if it can."""
    if stage == UNLABELLED:
        try:
            Synthetic(open_checkpoint(path))
        except RecipeError as error:
            fact = str(error).partition(": ")[2].split(". ")[0]
            return f"the model cannot write its own text ({fact})"
    return None


@cache
def milliseconds(path: Path) -> dict[str, float]:
    """Of each way to run the recurrent layers, all of them together."""
    total: dict[str, float] = {}
    for row in ttcompress.bench(path, batches=(1,), seconds=0.5).rows:
        total[row.run] = total.get(row.run, 0.0) + row.time.median
    return total


def table(name: str, stages: Mapping[str, Sweep]) -> Iterator[str]:
    first = next(iter(stages.values()))
    some = next(p for p in first.points if p.figures is not None and p.format != CODEC)
    times = milliseconds(some.path)
    yield (
        f"| `{name}` | bytes | {' | '.join(f'{first.metric}, {one}' for one in stages)} "
        f"| fewer multiply-adds | {' | '.join(f'{run}, ms' for run in RUNS)} |"
    )
    yield "|---|" + "--:|" * (len(stages) + len(RUNS) + 2)
    dense = {"ONNX": DENSE[1], "ONNX int8": DENSE[2], "torch": DENSE[0]}
    yield _line(
        "dense",
        f"{first.dense.bytes:,}",
        *(f"{first.dense.metric:#.5g}" if one == ALONE else "-" for one in stages),
        "1.00",
        *(f"{times[dense[run]]:.2f}" if run in dense else "-" for run in RUNS),
    )
    for point in first.points:
        if point.figures is None:
            continue
        found = {
            stage: next((p for p in one.points if p.name == point.name and p.figures), None)
            for stage, one in stages.items()
        }
        judged = found.get(CALIBRATED) or point
        times = {} if point.format == CODEC else milliseconds(judged.path)
        assert judged.figures is not None
        yield _line(
            point.name,
            f"{judged.figures.bytes:,}",
            *(f"{p.figures.metric:#.5g}" if p and p.figures else "-" for p in found.values()),
            f"{first.dense.multiply_adds / judged.figures.multiply_adds:.2f}",
            *(f"{times[run]:.2f}" if run in times else "-" for run in RUNS.values()),
        )


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", help="a sample's name, or a checkpoint's file")
    parser.add_argument("--task", help="a checkpoint's task, written as in a recipe")
    parser.add_argument("-j", "--jobs", type=int, default=1)
    parser.add_argument("--updates", type=int, default=5000)
    parser.add_argument("--stages", default=",".join(STAGES))
    parser.add_argument("--formats", default=",".join(FORMATS))
    parser.add_argument("--factors", default=",".join(map(str, FACTORS)))
    parser.add_argument("--folder", type=Path, default=Path("evidence"))
    parser.add_argument("--picture", type=Path, help="draw the last stage into this file")
    given = parser.parse_args()
    path = Path(given.model) if given.task else SAMPLES / f"{given.model}.pt"
    task = yaml.safe_load(given.task) if given.task else given.model
    done = {}
    for stage in given.stages.split(","):
        if reason := left_out(path, stage):
            print(f"{stage}: left out, as {reason}")
            continue
        formats = [one for one in given.formats.split(",") if stage == ALONE or one != CODEC]
        done[stage] = ttcompress.sweep(
            path,
            recipe(task, stage, given.updates),
            factors=[float(factor) for factor in given.factors.split(",")],
            formats=formats,
            folder=given.folder / f"{path.stem}.{stage.replace(' ', '-')}",
            engine=ttcompress.Engine(jobs=given.jobs, mixed_precision="bf16"),
            on_outcome=lambda one: print(f"{one.name}: {one.status}, {one.seconds:.0f} s"),
        )
    if not done:
        parser.exit(1)
    print("\n".join(table(path.stem, done)))
    if given.picture:
        *_, last = done.values()
        given.picture.write_bytes(ttcompress.front_picture(last, given.picture.suffix))


if __name__ == "__main__":
    main()
