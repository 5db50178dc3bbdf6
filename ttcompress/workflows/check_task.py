"""Runs one batch through every member of a task, so that a slip shows before a long run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ttcompress.checkpoint import Checkpoint, ModelSource
from ttcompress.errors import RecipeError
from ttcompress.layers.evaluating import evaluating
from ttcompress.recipe import AnyRecipe, Finetune, task_recipe
from ttcompress.system.text import shape_text
from ttcompress.tasks.evaluation import load_model, measure_module
from ttcompress.tasks.protocol import SINGLE, Task, name_outputs
from ttcompress.tasks.registry import task_for
from ttcompress.training.distillation import make_distillation
from ttcompress.workflows.evaluate import open_model
from ttcompress.workflows.job import named_task


@dataclass(frozen=True)
class CheckedMember:
    """A member of a task, and what it gave."""

    member: str
    found: str


def check_task(
    model: ModelSource | Checkpoint,
    recipe: AnyRecipe = None,
    *,
    task: Task | None = None,
    key: str | None = None,
) -> Iterator[CheckedMember]:
    """Build a task's model, load the weights, and run one batch through every member.

    Args:
        model: what the task is for.
        recipe: names the task; needs no budget.
        task: in place of the one that the recipe names.
        key: which state dict to use if the file holds several.

    Yields:
        Each member as soon as it has run.

    Raises:
        RecipeError: a member gives something else than `Task` says; names it.
        TaskError: a member raised an exception.
    """
    chosen = task_recipe(recipe)
    opened = open_model(model, key or chosen.key)
    found = named_task(chosen, opened) if task is None else task_for(opened, task)
    if found is None:
        raise RecipeError("no task is given, so there is nothing to check. Add --task.")
    built = load_model(found, opened)
    params = sum(p.numel() for p in built.parameters())
    yield CheckedMember("build", f"{type(built).__name__}, {params:,} params, holds the weights")
    yield CheckedMember("batches_per_epoch", f"{found.batches_per_epoch:,}")
    batch = next(iter(found.train_batches(0, 0)), None)
    if batch is None:
        yield CheckedMember("train_batches", "no batch: the task measures only")
    else:
        yield CheckedMember("train_batches", type(batch).__name__)
        with evaluating(built):
            outputs, _ = found.outputs(built, batch, None)
            for name, one in name_outputs(outputs).items():
                yield CheckedMember(_of("outputs", name), shape_text(one.shape))
            labelled = getattr(found, "labelled", True)
            loss = f"{float(found.loss(outputs, batch)):.4g}" if labelled else "none: no labels"
            yield CheckedMember("loss", loss)
            distillation = make_distillation(found, built, Finetune(distill=1.0), 0)
            for name, distance in distillation.distances.items():
                yield CheckedMember(_of("distillation", name), f"of {distance.kind}")
            if distillation.own is not None:
                yield CheckedMember("distillation", "the task's own")
    for name, value in measure_module(found, built).items():
        yield CheckedMember(f"evaluate: {name}", f"{value:.6g}")


def _of(member: str, output: str) -> str:
    return member if output == SINGLE else f"{member}: {output}"
