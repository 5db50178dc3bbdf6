"""Carries out a plan: every weight is decomposed, rounded and measured, and the rest is kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

from torch import Tensor

from ttcompress.artifact import CompressedModel, keyed_parts
from ttcompress.errors import CheckpointError, DecompositionError
from ttcompress.model.report import SPECTRUM_POINTS, CutSpectrum, Measured
from ttcompress.model.weights import OtherTensor, Weight
from ttcompress.planning.plan import Plan, PlannedWeight
from ttcompress.planning.spectrum import Spectrum
from ttcompress.results.from_plan import build_report
from ttcompress.system.memory import release_memory
from ttcompress.system.threads import side_by_side
from ttcompress.trains.stored import StoredWeight, measure_errors, store_weight
from ttcompress.workflows.job import Job

Made = tuple[StoredWeight, tuple[Spectrum, ...]]
"""A weight as it is stored, and the spectrum at each cut of its train."""

NOTHING_MADE: Mapping[str, Made] = {}


def execute(job: Job, plan: Plan, made: Mapping[str, Made] = NOTHING_MADE) -> CompressedModel:
    """Carry out a plan: decompose, round and measure one weight after another, and keep the rest.

    Args:
        job: what to compress.
        plan: what to do.
        made: the weights, by name, that were made by this plan before.

    Raises:
        DecompositionError: a weight holds NaN or infinity, or overflows its store.
        CheckpointError: a tensor of the model has the name that a core needs.
    """
    stored: list[StoredWeight] = []
    sizes: dict[str, int] = {}
    measured: list[Measured] = []

    def tell(done: int, planned: PlannedWeight) -> None:
        job.progress("decompose", done, len(plan.changed), planned.weight.name)

    work = partial(_make_and_measure, job, made)
    for one, size, errors in side_by_side(work, plan.changed, tell):
        stored.append(one)
        sizes[one.weight.name] = size
        measured.append(errors)
    job.progress("decompose", len(plan.changed), len(plan.changed))
    model = job.checkpoint
    tensors: list[Weight | OtherTensor] = [*model.weights, *model.others]
    kept = {t.name: model.tensor(t.name) for t in tensors if t.name not in sizes}
    for one in stored:
        _check_names(one, kept)
    return CompressedModel(
        weights=tuple(stored),
        kept=kept,
        ties={t.name: t.names for t in tensors if len(t.names) > 1},
        stacks=model.stacks,
        source_paths=model.source_paths,
        carried=model.carried,
        report=build_report(
            model,
            job.recipe,
            plan.as_written(sizes),
            measured,
            _broken(kept),
        ),
    )


def make_coded(job: Job, plan: Plan) -> dict[str, Made]:
    """The weights of the budget whose bytes a plan could only estimate."""
    coded = [p for p in plan.changed if p.in_budget and p.estimated is not None]

    def tell(done: int, planned: PlannedWeight) -> None:
        job.progress("round", done, len(coded), planned.weight.name)

    made = side_by_side(partial(_make, job), coded, tell)
    return {planned.weight.name: one for planned, one in zip(coded, made, strict=True)}


def _make_and_measure(
    job: Job, made: Mapping[str, Made], planned: PlannedWeight
) -> tuple[StoredWeight, int, Measured]:
    """Make one weight, unless it was made before, and measure its bytes and its error."""
    weight = planned.weight
    one, spectra = made.get(weight.name) or _make(job, planned)
    if one.layout.decomposes:
        errors = measure_errors(job.analysis.matrix(weight), one.blocks(), weight)
    else:
        weighting = job.weightings.get(weight.name)
        errors = job.analysis.dense_errors(weight, one.layout, one.parts[0].store, weighting)
    drawn = tuple(map(_draw, spectra, planned.ranks))
    release_memory()
    return one, one.bytes, Measured(errors, drawn)


def _make(job: Job, planned: PlannedWeight) -> Made:
    """Decompose and round one weight.

    Raises:
        DecompositionError: it holds NaN or infinity, or overflows its store.
    """
    weight, layout, store = planned.weight, planned.layout, planned.store
    assert layout is not None and store is not None  # it is not kept
    analysis, weighting = job.analysis, job.weightings.get(weight.name)
    if not layout.decomposes:
        return analysis.dense(weight, layout, store, weighting), ()
    known = analysis.factorizations(weight, weighting)
    try:
        return store_weight(
            analysis.matrix(weight), weight, layout, planned.ranks, store, weighting, known
        )
    except DecompositionError as error:
        raise error.at(weight.name) from error
    finally:
        release_memory()


def _draw(spectrum: Spectrum, rank: int) -> CutSpectrum:
    """Keep `SPECTRUM_POINTS` values for a picture: even steps, and both sides of the cut."""
    count = len(spectrum.values)
    step = max(1, -(-count // (SPECTRUM_POINTS - 3)))
    marks = {*range(0, count, step), rank - 1, rank, count - 1}
    indices = tuple(sorted(index for index in marks if 0 <= index < count))
    return CutSpectrum(indices, tuple(float(f"{spectrum.values[i]:.3g}") for i in indices), rank)


def _check_names(stored: StoredWeight, kept: Mapping[str, Tensor]) -> None:
    """Refuse a core whose name a tensor of the model has, since that tensor would be lost."""
    for key, part in keyed_parts(stored):
        for name in kept.keys() & {key + suffix for suffix in part.tensors}:
            raise CheckpointError(
                f"{name}: is a tensor of the model, but a core of {stored.weight.name} needs "
                "that name. Rename the tensor, or keep the weight by a rule: format: keep."
            )


def _broken(kept: Mapping[str, Tensor]) -> Iterator[str]:
    """Note tensors with NaN, which are kept anyway; infinity can be intended, as in a mask."""
    for name, tensor in kept.items():
        if tensor.is_floating_point() and bool(tensor.float().isnan().any()):
            yield f"{name} holds NaN and is kept unchanged"
