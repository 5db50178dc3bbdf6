"""What fine-tuning wins back, and what a step costs: prints tables, tests nothing.

    python tests/tools/bench_finetune.py steps [MODEL TASK]
    python tests/tools/bench_finetune.py mixes MODEL TASK --factor 16 --stores int4 int5 auto
        [--format mps] [--option text=input.txt] [--finetune '{epochs: 3, learning_rate: 4.0e-3}']

`steps` lets a dense step take turns with a student's: seeing the store's rounding or not, with a
teacher or without. `mixes` trains the same factor in different bits, ranks filling what is left.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from statistics import median
from time import perf_counter

import torch
import yaml

from ttcompress.checkpoint import open_checkpoint
from ttcompress.recipe import Finetune, as_recipe
from ttcompress.tasks.evaluation import load_model
from ttcompress.tasks.registry import task_for
from ttcompress.training.finetune import keep_everything
from ttcompress.training.loop import Training
from ttcompress.training.machine import make_machine
from ttcompress.training.student import apply_rounding
from ttcompress.workflows.compress import build
from ttcompress.workflows.job import prepare

CHARLM = ("sample_models/charlm.pt", "charlm")
ROUNDS = 15
KEPT = {"format": "dense", "store": "int8"}


def recipe_of(options: argparse.Namespace, store: str) -> dict[str, object]:
    """As the recipe `small-finetuned`, with the factor and the store that are asked for."""
    kept = [{"weights": role} | KEPT for role in ("embedding", "linear")]
    return {
        "version": 1,
        "format": options.format,
        "budget": {"factor": options.factor},
        "store": store,
        "rules": [{"weights": "recurrent"}, *kept],
        "default": "keep",
        "finetune": yaml.safe_load(options.finetune),
    }


def mixes(options: argparse.Namespace) -> None:
    """One line for each store: ranks, the counting metric at the start and at the end."""
    checkpoint = open_checkpoint(options.model)
    task = task_for(checkpoint, options.task, dict(pair.split("=", 1) for pair in options.option))
    counting = task.metrics[0].name
    print(f"| store | bits | ranks | {counting} before training | after | seconds | s a step |")
    print("|---|---|---|--:|--:|--:|--:|")
    for store in options.stores:
        recipe = as_recipe(recipe_of(options, store))
        assert recipe.finetune is not None
        start = build(prepare(checkpoint, recipe))
        teacher = load_model(task, checkpoint) if recipe.finetune.distill else None
        machine = make_machine("cpu", options.precision)
        tuned = Training(start, task, recipe.finetune, teacher=teacher, machine=machine).run()
        chosen = [w for w in start.report.weights if w.role == "recurrent"]
        bits = " ".join(sorted({str(w.store) for w in chosen}))
        ranks = " ".join(str(max(w.ranks, default=0)) for w in chosen)
        before, after = tuned.before[counting], tuned.after[counting]
        a_step = tuned.seconds / tuned.steps
        row = f"| {store} | {bits} | {ranks} | {before:.4f} | {after:.4f} "
        print(f"{row}| {tuned.seconds:.0f} | {a_step:.3f} |", flush=True)


def steps(options: argparse.Namespace) -> None:
    """Medians of each kind of step and their ratio to the dense one."""
    checkpoint = open_checkpoint(options.model)
    task = task_for(checkpoint, options.task)
    recipe = as_recipe(recipe_of(options, options.stores[0]))
    small = build(prepare(checkpoint, recipe))
    alone = Finetune(epochs=1, distill=0.0)
    taught = replace(alone, distill=0.5)
    teacher = load_model(task, checkpoint)
    runs = {
        "dense": Training(keep_everything(small, checkpoint), task, alone),
        "trains": Training(small, task, alone),
        "trains, rounded": Training(small, task, alone),
        "trains, rounded, with a teacher": Training(small, task, taught, teacher=teacher),
    }
    for name, training in runs.items():
        if "rounded" in name:
            apply_rounding(training.student, small)
            training.sees_store = True
    turns: dict[str, Iterator[float]] = {n: t._rest_of_epoch(0) for n, t in runs.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, turn in turns.items():
            started = perf_counter()
            next(turn)
            times[name].append(perf_counter() - started)
    dense = median(times["dense"])
    print("| a step of | s | beside dense |\n|---|--:|--:|")
    for name, taken in times.items():
        print(f"| {name} | {median(taken):.3f} | {median(taken) / dense:.2f}x |")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["steps", "mixes"])
    parser.add_argument("model", nargs="?", default=CHARLM[0])
    parser.add_argument("task", nargs="?", default=CHARLM[1])
    parser.add_argument("--factor", type=float, default=16.0)
    parser.add_argument("--format", default="mps")
    parser.add_argument("--stores", nargs="+", default=["auto"])
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--finetune", default="{epochs: 3, learning_rate: 4.0e-3}")
    parser.add_argument("--precision", default="no")
    options = parser.parse_args()
    torch.set_num_threads(1)
    {"steps": steps, "mixes": mixes}[options.what](options)


if __name__ == "__main__":
    main()
