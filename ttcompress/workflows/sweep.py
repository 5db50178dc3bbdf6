"""Compresses a model in every format at every factor, as the jobs of a batch: `sweep`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from ttcompress import errors
from ttcompress.errors import InputError, PlanError, TTCompressError
from ttcompress.hub import find_address, local_file
from ttcompress.jobs.engine import HERE, Engine
from ttcompress.model.report import Report
from ttcompress.model.weights import Weight
from ttcompress.planning.formats import decomposing
from ttcompress.recipe import AnyRecipe, Recipe, as_recipe
from ttcompress.results.document import read_report
from ttcompress.results.outcome import Outcome
from ttcompress.results.sweep import Figures, Point, Sweep
from ttcompress.system.files import make_folder, model_stem, written_whole
from ttcompress.system.progress import Progress, silent
from ttcompress.workflows.batch import OnOutcome, run_jobs
from ttcompress.workflows.batch_job import BatchJob
from ttcompress.workflows.methods import CODEC, method_recipe

if TYPE_CHECKING:
    from ttcompress.checkpoint import ModelSource  # torch
    from ttcompress.checkpoint.containers.memory import InMemory

FACTORS = (2.0, 4.0, 8.0, 16.0, 32.0)
FORMATS = decomposing()

Place = tuple[str, float]
"""A format and a factor: the place of a point in the sweep."""

Made = tuple[Outcome, Report | None]
"""The outcome of a point, and its report unless it failed."""


def sweep(
    model: ModelSource,
    recipe: AnyRecipe = None,
    *,
    factors: Sequence[float] = FACTORS,
    formats: Sequence[str] = FORMATS,
    folder: str | Path | None = None,
    engine: Engine = HERE,
    force: bool = False,
    on_outcome: OnOutcome = lambda outcome: None,
    progress: Progress = silent,
) -> Sweep:
    """Compress a model in every format at every factor, and find the points worth taking.

    Args:
        model: the checkpoint's file or its address on the hub; a module or a state dict is first
            written into the folder.
        recipe: as for `compress`; each point sets the format and the budget.
        factors: compression factors of the decomposed weights.
        formats: any of `METHODS`: mps, mpo, auto, and for comparison svd, quantised and codec. The
            points of codec have no artifact; they are computed here, and each time.
        folder: holds the artifacts, which the next run reuses; by default the model's stem (or the
            class of a module) + .sweep, in this folder.
        engine: where points are computed; by default local worker processes, one per core.
        force: also recompute points whose inputs have not changed.
        on_outcome: called with the outcome of each point as it comes.
        progress: receives the stage of each running point, under its name.

    Raises:
        RecipeError: a format or a factor is not valid.
        TTCompressError: no point could be made; the error is the first point's.
    """
    started = time.monotonic()
    if isinstance(model, str | Path):
        address, path = find_address(model), local_file(model)
        target = Path(folder or f"{address.stem if address else model_stem(path)}.sweep")
    else:
        target = Path(folder or f"{type(model).__name__}.sweep")
        path = _write_source(model, target)
    asked = dict.fromkeys((format, float(f)) for format in formats for f in factors)
    jobs = dict(zip(asked, sweep_jobs(path, as_recipe(recipe), asked, target), strict=True))
    ours = {place: job for place, job in jobs.items() if place[0] != CODEC}
    outcomes = run_jobs(
        [*ours.values()], engine=engine, force=force, on_outcome=on_outcome, progress=progress
    )
    made: dict[Place, Made] = {
        place: (outcome, None if outcome.error else read_report(ours[place].output))
        for place, outcome in zip(ours, outcomes, strict=True)
    }
    if yardstick := {place: job for place, job in jobs.items() if place[0] == CODEC}:
        for place, found in _code(path, as_recipe(recipe), yardstick, progress):
            made[place] = found
            on_outcome(found[0])
    return _collect(path.name, jobs, made, time.monotonic() - started)


def _code(
    model: Path, recipe: Recipe, jobs: Mapping[Place, BatchJob], progress: Progress
) -> Iterator[tuple[Place, Made]]:
    """Make the points of NNCodec, which no artifact could hold, one after another."""
    from ttcompress.workflows.codec import code  # torch
    from ttcompress.workflows.compress import measure  # torch
    from ttcompress.workflows.job import prepare  # torch

    prepared = prepare(model, replace(recipe, calibration=None, finetune=None))
    for (format, factor), job in jobs.items():
        started, report = time.monotonic(), None
        outcome = Outcome("", job.model_name, job.recipe_name)
        progress(job.name, 0, 1, format)
        try:
            report = measure(prepared, code(prepared, factor)).report
            reached = report.totals["weights"].compression_factor
            outcome = replace(outcome, factor=reached, metrics=report.metrics)
        except PlanError as error:
            outcome = replace(outcome, error=str(error), kind=type(error).__name__)
        progress(job.name, 1, 1, format)
        yield (format, factor), (replace(outcome, seconds=time.monotonic() - started), report)


def _write_source(model: InMemory, folder: Path) -> Path:
    """Write a model in memory where the workers, which are other processes, can read it.

    Raises:
        OutputError: the folder cannot be written.
    """
    import torch  # only where a model is given that needs it anyway

    make_folder(folder, "--folder")
    path = folder / f"{type(model).__name__}.pt"
    with written_whole(path, overwrite=True) as file:
        torch.save(dict(model if isinstance(model, Mapping) else model.state_dict()), file)
    return path


def sweep_jobs(
    model: Path, recipe: Recipe, asked: Iterable[Place], folder: Path
) -> tuple[BatchJob, ...]:
    """Make a job for every format at every factor.

    Raises:
        RecipeError: a format or a factor is not valid.
        InputError: there is no such model, or the folder is a file.
    """
    if not model.is_file():
        fact = "is a folder, but a model is a file" if model.is_dir() else "there is no such file"
        raise InputError(f"{model}: {fact}. You are in {Path.cwd()}.")
    if folder.exists() and not folder.is_dir():
        raise InputError(
            f"{folder}: is a file, but the points need a folder. Choose another --folder."
        )

    @cache
    def weights() -> Sequence[Weight]:
        from ttcompress.checkpoint import open_checkpoint  # torch

        return open_checkpoint(model, recipe.key).weights

    return tuple(
        BatchJob(
            model=model.resolve(),
            recipe=method_recipe(format, recipe, factor, weights),
            output=folder.resolve() / f"{point_name(format, factor)}.safetensors",
            folder=Path.cwd(),
            model_name=model_stem(model),
            recipe_name=point_name(format, factor),
        )
        for format, factor in asked
    )


def point_name(format: str, factor: float) -> str:
    """The name of a point, also for `--pick`.

    >>> point_name("mps", 16.0), point_name("mpo", 2.5)
    ('mps@16', 'mpo@2.5')
    """
    return f"{format}@{factor:g}"


def _collect(
    model: str, jobs: Mapping[Place, BatchJob], made: Mapping[Place, Made], seconds: float
) -> Sweep:
    """Read the points from their reports, and the dense model from the first one.

    Raises:
        TTCompressError: there is no report; the error is the first point's, with its exit code.
    """
    first, points = None, []
    for place, job in jobs.items():
        outcome, report = made[place]
        figures = None
        if report is not None:
            first = first or report
            totals, counting = report.totals["model"], outcome.counting
            figures = Figures(
                totals.bytes_after,
                totals.multiply_adds_after,
                max((weight.relative_error for weight in report.weights), default=0.0),
                None if counting is None else counting[1]["after"],
            )
        points.append(Point(*place, job.recipe, job.output, outcome, figures))
    if first is None:
        failed = points[0].outcome
        kind: type[TTCompressError] = getattr(errors, failed.kind, TTCompressError)
        raise kind(failed.error)
    totals = first.totals["model"]
    name, change = next(iter((first.metrics or {}).items()), (None, None))
    before, higher = (change["before"], change["higher_is_better"]) if change else (None, False)
    dense = Figures(totals.bytes_before, totals.multiply_adds_before, 0.0, before)
    return Sweep(model, tuple(points), dense, name, higher, seconds)
