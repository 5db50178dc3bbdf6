"""A model, formats and factors come in; the batch engine runs them, and points go out."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from functools import cache, partial
from pathlib import Path

from safetensors import safe_open

from ttcompress import errors
from ttcompress.errors import InputError, TTCompressError
from ttcompress.jobs.engine import HERE, Engine
from ttcompress.model.report import Report
from ttcompress.model.weights import Weight
from ttcompress.planning.formats import decomposing
from ttcompress.recipe import AnyRecipe, Recipe, as_recipe
from ttcompress.results.outcome import Outcome
from ttcompress.results.sweep import Figures, Point, Sweep
from ttcompress.system.files import model_stem
from ttcompress.system.progress import Progress, silent
from ttcompress.workflows.batch import Told, run_jobs
from ttcompress.workflows.batch_job import Job
from ttcompress.workflows.methods import method_recipe

FACTORS = (2.0, 4.0, 8.0, 16.0, 32.0)
FORMATS = decomposing()

Place = tuple[str, float]
"""A format and a factor: where in the sweep a point is."""


def sweep(
    model: str | Path,
    recipe: AnyRecipe = None,
    *,
    factors: Sequence[float] = FACTORS,
    formats: Sequence[str] = FORMATS,
    folder: str | Path | None = None,
    engine: Engine = HERE,
    force: bool = False,
    told: Told = lambda outcome: None,
    progress: Progress = silent,
) -> Sweep:
    """Compress a model in every format at every factor, and find the points worth taking.

    Args:
        model: the checkpoint's file.
        recipe: all but the format and the budget, which each point sets; as of `compress`.
        factors: compression factors of the decomposed weights.
        formats: of `METHODS`: mps, mpo, auto; svd and quantised stand beside them, as of `compare`.
        folder: where artifacts go, and are found again the next time; by default the model's stem
            + .sweep, in this folder.
        engine: where points are worked on; by default worker processes here, one for each core.
        force: work also on points that have not changed.
        told: called with the outcome of each point as it comes.
        progress: told where each running point is, under its name.

    Raises:
        RecipeError: a format or a factor is none.
        TTCompressError: no point could be made; the error is that of the first.
    """
    started = time.monotonic()
    model = Path(model)
    target = Path(folder) if folder is not None else Path(f"{model_stem(model)}.sweep")
    asked = dict.fromkeys((format, float(f)) for format in formats for f in factors)
    jobs = sweep_jobs(model, as_recipe(recipe), asked, target)
    outcomes = run_jobs(jobs, engine=engine, force=force, told=told, progress=progress)
    return _swept(model.name, asked, jobs, outcomes, time.monotonic() - started)


def sweep_jobs(
    model: Path, recipe: Recipe, asked: Iterable[Place], folder: Path
) -> tuple[Job, ...]:
    """A job for every format at every factor.

    Raises:
        RecipeError: a format or a factor is none.
        InputError: there is no such model, or the folder is a file.
    """
    if not model.is_file():
        fact = "is a folder, and a model is a file" if model.is_dir() else "there is no such file"
        raise InputError(f"{model}: {fact}. You are in {Path.cwd()}.")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file, and points go to a folder. Use another --folder.")
    weights = cache(partial(_weights, model, recipe.key))
    return tuple(
        Job(
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
    """What a point is called, by `--pick` too.

    >>> point_name("mps", 16.0), point_name("mpo", 2.5)
    ('mps@16', 'mpo@2.5')
    """
    return f"{format}@{factor:g}"


def _weights(model: Path, key: str | None) -> Sequence[Weight]:
    from ttcompress.checkpoint import open_checkpoint  # torch

    return open_checkpoint(model, key).weights


def _swept(
    model: str,
    asked: Iterable[Place],
    jobs: Sequence[Job],
    outcomes: Sequence[Outcome],
    seconds: float,
) -> Sweep:
    """The points, and the dense model as the first report there is knows it."""
    reports = [None if o.error else _report(j.output) for j, o in zip(jobs, outcomes, strict=True)]
    first = next((report for report in reports if report is not None), None)
    if first is None:
        raise _error(outcomes[0])
    points = tuple(map(_point, asked, jobs, outcomes, reports))
    totals = first.totals["model"]
    name, change = next(iter((first.metrics or {}).items()), (None, None))
    before, higher = (change["before"], change["higher_is_better"]) if change else (None, False)
    dense = Figures(totals.bytes_before, totals.multiply_adds_before, 0.0, before)
    return Sweep(model, points, dense, name, higher, seconds)


def _point(asked: Place, job: Job, outcome: Outcome, report: Report | None) -> Point:
    if report is None:
        return Point(*asked, job.recipe, job.output, outcome, None)
    totals = report.totals["model"]
    counting = outcome.counting
    figures = Figures(
        totals.bytes_after,
        totals.multiply_adds_after,
        max((weight.relative_error for weight in report.weights), default=0.0),
        None if counting is None else counting[1]["after"],
    )
    return Point(*asked, job.recipe, job.output, outcome, figures)


def _report(path: Path) -> Report:
    """From the file's metadata alone: the tensors, and torch, are not needed."""
    with safe_open(path, framework="np") as file:
        return Report.from_json(json.loads(file.metadata()["ttcompress"])["report"])


def _error(outcome: Outcome) -> TTCompressError:
    """The error that an outcome tells of, so that it has its exit code again."""
    kind: type[TTCompressError] = getattr(errors, outcome.kind, TTCompressError)
    return kind(outcome.error)
