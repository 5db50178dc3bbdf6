"""What each lever of data-aware compression brings, one after another, without any gradient.

    python tests/tools/bench_levers.py sample_models/charlm.pt --task charlm
    python tests/tools/bench_levers.py text512.pt --task language-model --text input.txt

Prints by how much the task's counting metric worsens at equal bytes of the recurrent weights:

- svd: each weight cut by the same factor, factors in int8;
- allocation: one budget over all weights, still in int8;
- bits: the bits chosen together with the ranks;
- coded: integers as fine as what one error costs on average, entropy-coded;
- spectrum: as fine as the cost of an error in each row and column;
- weighting: errors weighed by the inputs, rounding to nearest;
- feedback: rounding errors made up for;
- regression: fitted layer by layer, biases included;
- auto: the same, where a weight may stay dense in few bits;
- quantised: dense in few bits alone, as they come.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from ttcompress.artifact import CompressedModel
from ttcompress.calibration.moments import Calibration, calibrate
from ttcompress.calibration.refit import refit
from ttcompress.calibration.sources import task_source
from ttcompress.checkpoint import Checkpoint, open_checkpoint
from ttcompress.errors import PlanError
from ttcompress.layers.structure import structure_of
from ttcompress.recipe import Recipe, recipe_from
from ttcompress.stores import STORES, Costs
from ttcompress.tasks.evaluation import measure_metrics
from ttcompress.tasks.registry import make_task
from ttcompress.trains import feedback
from ttcompress.trains.costs import core_costs
from ttcompress.trains.train import Train
from ttcompress.trains.weighting import Weighting
from ttcompress.workflows.budget import meet_tolerance
from ttcompress.workflows.job import prepare

CALIBRATED = {"calibration": {"batches": 64}}
REST = [
    {"weights": "embedding", "format": "dense", "store": "int8"},
    {"weights": "linear", "format": "dense", "store": "int8"},
]


def recipe(factor: float, rules: list[dict[str, Any]] | None = None, **keys: Any) -> Any:
    first = [{"weights": "recurrent"}] if rules is None else rules
    asked = {"version": 1, "default": "keep", "budget": {"factor": factor}}
    return recipe_from({**asked, "rules": [*first, *REST], **keys})


def equal_fractions(checkpoint: Checkpoint, factor: float) -> list[dict[str, Any]]:
    """For each recurrent weight the rank whose int8 factors are so many times smaller."""
    rules = []
    for weight in checkpoint.weights:
        if weight.role == "recurrent":
            rows, columns = weight.shape
            bytes_of_a_rank = (rows + columns) * STORES["int8"].bytes_per_value
            rank = max(1, int(weight.bytes / factor / bytes_of_a_rank))
            modes = {"row_modes": [rows], "column_modes": [columns]}
            rules.append({"weights": weight.name, **modes, "ranks": [rank], "store": "int8"})
    return rules


def decompose(
    checkpoint: Checkpoint, recipe: Recipe, shown: Calibration | None = None
) -> CompressedModel:
    """Without the refit that follows it in `build`."""
    job = prepare(checkpoint, replace(recipe, calibration=None))
    return meet_tolerance(replace(job, recipe=recipe, calibration=shown))


def even_costs(train: Train, weighting: Weighting | None) -> tuple[Costs, ...]:
    """The same cost for every value of a core: their mean."""

    def even(costs: Tensor) -> Tensor:
        return costs.mean().expand(len(costs))

    found = core_costs(train, weighting)
    return tuple(Costs(even(one.components), even(one.places)) for one in found)


def levers(
    checkpoint: Checkpoint, factor: float, shown: Calibration
) -> Iterator[tuple[str, CompressedModel]]:
    rules = equal_fractions(checkpoint, factor)
    yield "svd", decompose(checkpoint, recipe(1.01, rules))
    yield "allocation", decompose(checkpoint, recipe(factor, store="int8"))
    yield "bits", decompose(checkpoint, recipe(factor, target="onnx"))
    with mock.patch.object(feedback, "core_costs", even_costs):
        yield "coded", decompose(checkpoint, recipe(factor))
    yield "spectrum", decompose(checkpoint, recipe(factor))
    aware = recipe(factor, **CALIBRATED)
    with mock.patch.object(feedback, "_compensate", lambda matrix, *known: matrix):
        yield "weighting", decompose(checkpoint, aware, shown)
    weighted = decompose(checkpoint, aware, shown)
    yield "feedback", weighted
    yield "regression", refit(checkpoint, weighted, shown)
    free = recipe(factor, format="auto", **CALIBRATED)
    free_model = decompose(checkpoint, free, shown)
    yield "auto", refit(checkpoint, free_model, shown)
    bits = [{"weights": "recurrent", "format": "dense"}]
    try:
        yield "quantised", decompose(checkpoint, recipe(factor, bits))
    except PlanError:  # bits alone end before 16
        return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--task", required=True)
    parser.add_argument("--text")
    parser.add_argument("--factors", default="8,16,32")
    asked = parser.parse_args()
    checkpoint = open_checkpoint(asked.model)
    options = {"text": asked.text, "steps": 128} if asked.text else {}
    task = make_task(asked.task, structure_of(checkpoint), options)
    metric = task.metrics[0]
    sign = -1 if metric.higher_is_better else 1
    dense = measure_metrics(task, checkpoint)[metric.name]
    print(f"{asked.model.name}: {metric.name} {dense:.4f} dense; how much it worsens\n")
    batches = CALIBRATED["calibration"]["batches"]
    shown = calibrate(checkpoint, task_source(task, checkpoint.stacks, batches, seed=0))
    for factor in map(float, asked.factors.split(",")):
        for name, model in levers(checkpoint, factor, shown):
            reached = model.report.totals["weights"].compression_factor
            drop = sign * (measure_metrics(task, model)[metric.name] - dense)
            print(f"| {factor:g} | {name} | {reached:.2f} | {drop:.4f} |", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
