"""Opens and checks everything that one compression needs: `prepare` makes the `Job`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from ttcompress.artifact import CompressedModel
from ttcompress.calibration.moments import Calibration, calibrate
from ttcompress.calibration.sources import (
    DataSource,
    FileSource,
    ModuleSource,
    loader_source,
    task_source,
)
from ttcompress.checkpoint import Checkpoint, ModelSource, open_checkpoint
from ttcompress.errors import RecipeError
from ttcompress.layers.structure import structure_of
from ttcompress.model.protocol import Model
from ttcompress.recipe import AnyRecipe, CalibrationChoice, Recipe, as_recipe, with_options
from ttcompress.system.progress import Progress, silent
from ttcompress.tasks.evaluation import load_model
from ttcompress.tasks.of import task_of
from ttcompress.tasks.protocol import Task
from ttcompress.tasks.recorded import RecordedTask
from ttcompress.tasks.registry import make_task, task_for
from ttcompress.tasks.synthetic import PAGE, STEPS, Synthetic
from ttcompress.training.finetune import CONDITIONS, Conditions
from ttcompress.training.sensitivity import measure_sensitivity
from ttcompress.trains.analysis import NO_WEIGHTINGS, Analysis, Weightings

Data = str | Path | Iterable[Any]
"""Inputs to calibrate on: a file of recorded ones, or batches for a module."""


@dataclass(frozen=True, eq=False)
class Job:
    """Everything one compression needs; `dataclasses.replace` makes a variation of it.

    Attributes:
        model: the checkpoint to compress, or a compressed model to fine-tune.
        recipe: how to compress it.
        task: measures it; None if the recipe names none and nothing is trained.
        trainer: gives the data to fine-tune on; the task itself, or what needs no labels.
        calibration: statistics of the recipe's data; None if it names none.
        costs: of a unit of squared error, by weight, where a budget of the whole file asks for them
            and there is data.
        conditions: how fine-tuning runs: device, resuming, control.
        progress: receives what is being done.
        notes: what the user should know of how it was prepared.
        beside_flash: bytes in a device's flash beside the weights of the budget, if it limits them.
        model_flash: bytes in flash of the model that is planned so.
        analysis: decompositions of the weights, shared by variations so that none is repeated.
    """

    model: Checkpoint | CompressedModel
    recipe: Recipe
    task: Task | None = None
    trainer: Task | None = None
    calibration: Calibration | None = None
    costs: Mapping[str, float] = field(default_factory=dict)
    conditions: Conditions = CONDITIONS
    progress: Progress = silent
    notes: tuple[str, ...] = ()
    beside_flash: int = 0
    model_flash: int | None = None
    analysis: Analysis = field(kw_only=True)

    @property
    def checkpoint(self) -> Checkpoint:
        """The model, which must be one to compress."""
        assert isinstance(self.model, Checkpoint), "a compressed model is not compressed again"
        return self.model

    @property
    def largest_file(self) -> int | None:
        """The most bytes that the file may have; None if the budget does not limit them."""
        model = self.checkpoint
        before = sum(w.bytes for w in model.weights) + sum(o.bytes for o in model.others)
        return self.recipe.budget.largest_file(before)

    @property
    def weightings(self) -> Weightings:
        """The cost of errors, by weight; empty without calibration."""
        return NO_WEIGHTINGS if self.calibration is None else self.calibration.weightings


def prepare(
    source: ModelSource | Checkpoint | CompressedModel,
    recipe: AnyRecipe = None,
    *,
    task: Task | None = None,
    data: Data | None = None,
    key: str | None = None,
    conditions: Conditions = CONDITIONS,
    progress: Progress = silent,
    measured: bool = True,
) -> Job:
    """Open a model, read its recipe, build its task, and run the calibration data through it.

    Args:
        source: a checkpoint's file, a module, a state dict, or a model that is open already.
        recipe: a `Recipe`, a file, the name of a shipped recipe, or a mapping with a recipe's keys;
            the default is `balanced`.
        task: in place of the one that the recipe names.
        data: to calibrate on, in place of what the recipe names.
        key: which state dict to use if the file holds several; see `open_checkpoint`.
        conditions: how fine-tuning runs.
        progress: receives what is being done.
        measured: whether the task is needed for more than calibration.

    Raises:
        RecipeError: there is no data for calibration, or the task is unknown or does not fit.
        TTCompressError: see `ttcompress.errors`.
    """
    chosen = with_options(as_recipe(recipe), key=key)
    if data is not None:
        chosen = _with_data(chosen, data)
    if isinstance(source, Checkpoint | CompressedModel):
        model: Checkpoint | CompressedModel = source
    else:
        model = open_checkpoint(source, chosen.key)
    if task is not None:
        task = task_for(model, task)
    elif measured or chosen.calibration or chosen.budget.of_file:
        task = named_task(chosen, model)
    trainer = None
    if chosen.finetune is not None and measured:
        trainer = choose_trainer(chosen, model, task)
    weights = model.weights if isinstance(model, Checkpoint) else ()
    job = Job(
        model,
        chosen,
        task or trainer,
        trainer,
        conditions=conditions,
        progress=progress,
        analysis=Analysis(model.tensor, weights),
    )
    if chosen.calibration is not None:
        found = _calibration_source(job, task, source, data)
        if isinstance(found, str):
            job = replace(job, notes=(found,))
        else:
            job = replace(job, calibration=calibrate(job.checkpoint, found, progress))
    if chosen.budget.of_file and isinstance(model, Checkpoint):
        job = _measure_costs(job, task, source, data)
    return job


def _measure_costs(job: Job, task: Task | None, source: object, data: Data | None) -> Job:
    """Measure what errors cost the outputs, on the task's data or else on the calibration's."""
    model, wanted = job.checkpoint, job.recipe.calibration
    shown_by = None if job.calibration is None else job.calibration.source
    try:
        if task is not None:
            shown: Task = task
        elif wanted is None or shown_by is None:
            return job
        elif wanted.data is not None:
            shown = RecordedTask(model, wanted.data)
        elif data is not None and isinstance(shown_by, ModuleSource):
            assert isinstance(source, nn.Module)  # `_calibration_source` asked for it
            shown = task_of(source, train=shown_by.given, predicts="values")
        else:
            shown = Synthetic(model)
        sensitivity = measure_sensitivity(
            shown, load_model(shown, model), model.weights, job.recipe.seed, job.progress
        )
    except RecipeError as error:
        note = f"what errors cost the outputs was estimated by role, not measured: {error}"
        return replace(job, notes=(*job.notes, note))
    costs = {
        name: one / job.weightings[name].mean if name in job.weightings else one
        for name, one in sensitivity.items()
    }
    return replace(job, costs=costs)


def named_task(recipe: Recipe, model: Model) -> Task | None:
    """Build the task that a recipe names for a model; None if it names none."""
    if recipe.task is None:
        return None
    return make_task(recipe.task.name, structure_of(model), dict(recipe.task.options))


def choose_trainer(recipe: Recipe, model: Model, task: Task | None) -> Task:
    """What a model is trained on: the task, recorded inputs, or text that it writes itself.

    Raises:
        RecipeError: there is nothing to train on, or not what the recipe says.
    """
    asked = recipe.finetune.data if recipe.finetune else None
    file = recipe.calibration.data if recipe.calibration else None
    there = "task" if task is not None else "recorded" if file is not None else "synthetic"
    match asked or there:
        case "task":
            if task is None:
                raise RecipeError("finetune.data: there is no task. Add --task, or a task block.")
            return task
        case "recorded":
            if file is None:
                raise RecipeError(
                    "finetune.data: there are no recorded inputs. Add --data FILE; "
                    "ttcompress.record writes it."
                )
            return RecordedTask(model, file)
        case "synthetic":
            try:
                return Synthetic(model)
            except RecipeError as error:
                if asked:
                    raise
                fact = str(error).partition(": ")[2].split(". ")[0]
                raise RecipeError(
                    "finetune: there is nothing to train on: no task, no recorded inputs, and the "
                    f"model cannot write its own text ({fact}). Add --task, or --data with inputs "
                    "that ttcompress.record wrote; ttcompress.task_of makes a task of batches."
                ) from error
    raise AssertionError(f"the recipe's schema does not allow {asked}")


def _with_data(recipe: Recipe, data: Data) -> Recipe:
    """The recipe with a calibration on the data."""
    if isinstance(data, str | Path):
        return with_options(recipe, data=str(data))
    choice = recipe.calibration or CalibrationChoice()
    return with_options(recipe, calibrate=choice.batches)


def _calibration_source(
    job: Job, task: Task | None, source: object, data: Data | None
) -> DataSource | str:
    """The data that calibration runs through the dense model, or a note why there is none."""
    wanted, stacks = job.recipe.calibration, job.model.stacks
    assert wanted is not None
    if wanted.data is not None:
        return FileSource(wanted.data, job.model)
    if data is not None:
        assert not isinstance(data, str | Path)  # a file's path stands in the recipe
        if not isinstance(source, nn.Module):
            raise RecipeError(
                "data: batches need a module that they can run through, but the model is given as "
                f"{job.checkpoint.label}. Give the module, or a file of recorded inputs."
            )
        return loader_source(source, stacks, data, wanted.batches)
    if wanted.synthetic is not None:
        if job.recipe.budget.tolerance is not None:
            return "not calibrated: a tolerance bounds the error of the weights themselves"
        try:
            writer = Synthetic(job.model, batch=wanted.synthetic, batches=PAGE // STEPS)
            return task_source(writer, stacks, writer.batches_per_epoch, job.recipe.seed)
        except RecipeError as error:
            fact = str(error).partition(": ")[2].split(". ")[0]
            return f"not calibrated: the model cannot write its own inputs ({fact})"
    if task is None:
        raise RecipeError(
            "calibration: there is no data. Add --task, to use the task's training batches, "
            "or --data with a file of recorded inputs."
        )
    return task_source(task, stacks, wanted.batches, job.recipe.seed)
