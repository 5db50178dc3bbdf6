"""The whole way: checkpoint and recipe -> plan -> compress -> [fine-tune] -> measure -> artifact.

    checkpoint --+
                 +-> plan -> execute -> [tune] -> measure -> CompressedModel (.save: the artifact)
    recipe ------+

Read this file first; every arrow is one call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ttcompress.artifact import CompressedModel, load
from ttcompress.checkpoint import Checkpoint, open_checkpoint
from ttcompress.compress import decompose_weights, measure_spectra
from ttcompress.drift import drift_over_time
from ttcompress.errors import CheckpointError, PlanError, RecipeError
from ttcompress.evaluate import compared, measured, metrics_before_after
from ttcompress.finetune.run import CONDITIONS, Conditions, finetune
from ttcompress.plan.model import Plan
from ttcompress.plan.planner import cuts_for, make_plan
from ttcompress.plan.spectrum import Spectra
from ttcompress.progress import Progress, silent
from ttcompress.recipe import (
    Finetune,
    Recipe,
    default_recipe,
    effective,
    find_recipe,
    load_recipe,
)
from ttcompress.recipe import recipe_from as recipe_from_mapping
from ttcompress.report.build import build_report
from ttcompress.tasks.finding import make_task
from ttcompress.tasks.protocol import Task
from ttcompress.tasks.structure import structure_of
from ttcompress.weights import OtherTensor, Weight

AnyRecipe = Recipe | str | Path | Mapping[str, Any] | None

_HEADER_GUESS = 24_000  # bytes; a `size` budget measures the header and plans again
_ROUNDS = 6


def compress(
    source: str | Path,
    recipe: AnyRecipe = None,
    *,
    key: str | None = None,
    conditions: Conditions = CONDITIONS,
    progress: Progress = silent,
) -> CompressedModel:
    """Compress a trained checkpoint, fine-tune it where the recipe says so, and measure it.

    Args:
        source: the checkpoint's file.
        recipe: a `Recipe`, a file, the name of a shipped recipe, or a mapping with a recipe's keys;
            the default is `balanced`.
        key: which state dict to take where the file holds several.
        conditions: of a fine-tuning: device, resuming, control.
        progress: told what is being done.

    Raises:
        TTCompressError: see `ttcompress.errors`; nothing is written here.
    """
    chosen = as_recipe(recipe)
    checkpoint = open_checkpoint(source, key or chosen.key)
    task = task_of(chosen, checkpoint)
    compressed = decompose(checkpoint, chosen, progress)
    if chosen.finetune is not None:
        compressed = tune(compressed, chosen, task, checkpoint, conditions)
    return measure(checkpoint, compressed, task, seed=chosen.seed, progress=progress)


def tune(
    compressed: CompressedModel,
    recipe: Recipe,
    task: Task | None,
    original: Checkpoint | None,
    conditions: Conditions = CONDITIONS,
) -> CompressedModel:
    """Fine-tune as the recipe says.

    Raises:
        RecipeError: there is no task.
    """
    if task is None:
        raise RecipeError(
            "finetune: needs a task, which says what is trained and what counts. "
            "Add --task, or a task block to the recipe."
        )
    settings = recipe.finetune or Finetune()
    return finetune(compressed, task, settings, replace(conditions, seed=recipe.seed), original)


def decompose(
    checkpoint: Checkpoint, recipe: Recipe, progress: Progress = silent
) -> CompressedModel:
    """Plan and execute, until what only the result can tell (errors, header) is within budget."""
    spectra = spectra_for(checkpoint, recipe, progress)
    if recipe.budget.size is not None:
        return _within_size(checkpoint, recipe, spectra, recipe.budget.size, progress)
    return _within_tolerance(checkpoint, recipe, spectra, progress)


def measure(
    checkpoint: Checkpoint,
    compressed: CompressedModel,
    task: Task | None = None,
    *,
    seed: int = 0,
    progress: Progress = silent,
) -> CompressedModel:
    """Add to the report what was lost: drift always, the task's metrics where there is a task."""
    drift = drift_over_time(checkpoint, compressed, seed=seed)
    metrics = None
    if task is not None:
        metrics = metrics_before_after(checkpoint, compressed, task, progress=progress)
    return replace(compressed, report=replace(compressed.report, drift=drift, metrics=metrics))


def task_of(recipe: Recipe, model: Checkpoint | CompressedModel) -> Task | None:
    """The task that a recipe names, built for a model; None where it names none."""
    if recipe.task is None:
        return None
    return make_task(recipe.task.name, structure_of(model), dict(recipe.task.options))


def tune_artifact(
    artifact: str | Path,
    recipe: AnyRecipe = None,
    *,
    original: str | Path | None = None,
    conditions: Conditions = CONDITIONS,
    progress: Progress = silent,
) -> CompressedModel:
    """Fine-tune a model that is compressed already.

    Args:
        artifact: the compressed file.
        recipe: its `task:` and `finetune:` blocks count; the rest was done.
        original: the checkpoint it was made from: the teacher, and what is measured against.
        conditions: device, resuming, control.
        progress: told what is being done.

    Raises:
        CheckpointError: `original` is another file than the one that was compressed.
        TTCompressError: see `ttcompress.errors`.
    """
    chosen, compressed = as_recipe(recipe), load(artifact)
    task = task_of(chosen, compressed)
    dense = None if original is None else _same_source(open_checkpoint(original), compressed)
    tuned = tune(compressed, chosen, task, dense, conditions)
    if dense is not None:
        return measure(dense, tuned, task, seed=chosen.seed, progress=progress)
    assert task is not None  # `tune` asked for one
    return _measured_alone(compressed, tuned, task)


def _same_source(checkpoint: Checkpoint, compressed: CompressedModel) -> Checkpoint:
    wanted = compressed.report.source["sha256"]
    if checkpoint.sha256 != wanted:
        raise CheckpointError(
            f"{checkpoint.path}: its hash is {checkpoint.sha256[:12]}..., and the compressed model "
            f"was made from {wanted[:12]}.... Give the file it was made from."
        )
    return checkpoint


def _measured_alone(before: CompressedModel, after: CompressedModel, task: Task) -> CompressedModel:
    """Metrics without the original: against what the report knew of it, or the start."""
    known = {name: found["before"] for name, found in (before.report.metrics or {}).items()}
    first = measured(task, before) | known
    metrics = compared(task, first, measured(task, after))
    note = "fine-tuned without the original: errors and drift are those before"
    notes = (*after.report.notes, note)
    return replace(after, report=replace(after.report, metrics=metrics, notes=notes))


def plan(
    source: str | Path,
    recipe: AnyRecipe = None,
    *,
    key: str | None = None,
    progress: Progress = silent,
) -> tuple[Checkpoint, Plan]:
    """What `compress` would do, with exact sizes; nothing is decomposed.

    Under a `size` budget the bytes of the file's header are an estimate.
    """
    chosen = as_recipe(recipe)
    checkpoint = open_checkpoint(source, key or chosen.key)
    spectra = spectra_for(checkpoint, chosen, progress)
    overhead = _HEADER_GUESS if chosen.budget.size is not None else 0
    return checkpoint, _plan(checkpoint, chosen, spectra, overhead)


def as_recipe(recipe: AnyRecipe) -> Recipe:
    """A recipe from whatever a user has in hand."""
    if isinstance(recipe, Recipe):
        return recipe
    if recipe is None:
        return default_recipe()
    if isinstance(recipe, Mapping):
        return recipe_from_mapping(recipe)
    return load_recipe(find_recipe(recipe))


def spectra_for(
    checkpoint: Checkpoint, recipe: Recipe, progress: Progress = silent
) -> dict[str, Spectra]:
    """The singular values this recipe needs to be planned."""
    weights = {weight.name: weight for weight in checkpoint.weights}
    return measure_spectra(checkpoint, weights, cuts_for(recipe, checkpoint.weights), progress)


def execute(
    checkpoint: Checkpoint, recipe: Recipe, plan: Plan, progress: Progress = silent
) -> CompressedModel:
    """Carry out a plan: decompose, round, measure, and keep the rest."""
    results = list(decompose_weights(checkpoint, plan, progress))
    changed = {stored.weight.name for stored, _ in results}
    tensors: list[Weight | OtherTensor] = [*checkpoint.weights, *checkpoint.others]
    return CompressedModel(
        weights=tuple(stored for stored, _ in results),
        kept={t.name: checkpoint.tensor(t.name) for t in tensors if t.name not in changed},
        ties={t.name: t.names for t in tensors if len(t.names) > 1},
        stacks=checkpoint.stacks,
        source_paths=checkpoint.source_paths,
        carried=checkpoint.carried,
        report=build_report(
            source={"sha256": checkpoint.sha256, "bytes": checkpoint.bytes},
            recipe={"text": recipe.text, "effective": effective(recipe)},
            plan=plan,
            measured=[measured for _, measured in results],
            notes=checkpoint.notes,
        ),
    )


def _plan(
    checkpoint: Checkpoint, recipe: Recipe, spectra: Mapping[str, Spectra], overhead: int = 0
) -> Plan:
    return make_plan(recipe, checkpoint.weights, checkpoint.others, spectra, overhead)


def _within_tolerance(
    checkpoint: Checkpoint,
    recipe: Recipe,
    spectra: Mapping[str, Spectra],
    progress: Progress,
    overhead: int = 0,
) -> CompressedModel:
    """Plan and execute until every measured error is within the tolerance.

    A plan knows the rounding error only as an expectation: where the measured one is above the
    tolerance, the next plan aims as much lower.
    """
    asked = aim = recipe.budget.tolerance
    for _ in range(_ROUNDS):
        aimed = replace(recipe, budget=replace(recipe.budget, tolerance=aim))
        made = _plan(checkpoint, aimed, spectra, overhead)
        model = execute(checkpoint, recipe, made, progress)
        worst = _worst_error(made, model)
        if not asked or not aim or worst <= asked:
            return model
        aim *= 0.999 * asked / worst
    raise PlanError(
        f"budget.tolerance: {asked} asked, but the stored weights lose {worst:.4g}. "
        "Ask for a larger tolerance, or for a store with more bits."
    )


def _worst_error(made: Plan, model: CompressedModel) -> float:
    """The largest measured error among the weights whose ranks or bits the budget chose."""
    chosen = {p.weight.name for p in made.weights if p.in_budget and not p.explicit}
    errors = [w.relative_error for w in model.report.weights if w.name in chosen]
    return max(errors, default=0.0)


def _within_size(
    checkpoint: Checkpoint,
    recipe: Recipe,
    spectra: Mapping[str, Spectra],
    size: int,
    progress: Progress,
) -> CompressedModel:
    """Plan and execute until the file is as large as `size` allows.

    The header holds the report, whose length is known only afterwards: each round plans with the
    header that the round before really had.
    """
    room = size - _to_be_measured(checkpoint, recipe)
    overhead, best = _HEADER_GUESS, None
    for _ in range(_ROUNDS):
        model = _within_tolerance(checkpoint, recipe, spectra, progress, overhead)
        written = model.file_bytes
        if written <= room and (best is None or written > best.file_bytes):
            best = model
        header = written - model.report.totals["model"].bytes_after + size - room
        if header == overhead or (best is model and written > 0.995 * room):
            break
        overhead = header
    if best is None:
        raise PlanError(
            f"budget.size: {size:,} bytes asked, the smallest file found has {written:,}. "
            "Ask for a larger file, or decompose more weights."
        )
    return best


def _to_be_measured(checkpoint: Checkpoint, recipe: Recipe) -> int:
    """Bytes for what is added to the report after the size is settled: drift, metrics, limits."""
    return 300 + 100 * len(checkpoint.stacks) + (500 if recipe.task else 0)
