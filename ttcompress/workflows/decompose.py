"""Plans and decomposes until the result is within its budget.

A plan is made before anything is decomposed. Two things show only in the result: the rounding
error, for a tolerance, and the length of the file's header, for a size. If one of them exceeds the
budget, the weights are planned and decomposed again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from math import exp, inf, log

from torch import Tensor

from ttcompress.artifact import CompressedModel, keyed_parts
from ttcompress.calibration.moments import Calibration
from ttcompress.errors import CheckpointError, DecompositionError, PlanError
from ttcompress.model.report import SPECTRUM_POINTS, CutSpectrum, Measured
from ttcompress.model.weights import OtherTensor, Weight
from ttcompress.planning.menus import Unfit, too_coarse
from ttcompress.planning.plan import Plan, PlannedWeight
from ttcompress.planning.planner import cuts_for, make_plan
from ttcompress.planning.spectrum import Spectrum
from ttcompress.results.from_plan import build_report
from ttcompress.stores.coded import CODED
from ttcompress.system.memory import release_memory
from ttcompress.system.threads import side_by_side
from ttcompress.targets.c.build import pack_part
from ttcompress.targets.registry import find_target
from ttcompress.trains.stored import StoredWeight, measure_errors, store_weight
from ttcompress.workflows.export import choose_parts, choose_rounding
from ttcompress.workflows.job import Job

_ROUNDS = 6

_SLACK = 0.01
"""How much less than it may a coded model takes: what issues from values cannot be hit exactly."""

WORST_ROW = 0.5
"""The most that any row of a weight stored dense may lose, relative to its norm."""


def plan_weights(job: Job, overhead: int = 0, stretch: float = 1.0) -> Plan:
    """Decide what is done to every weight.

    `overhead` is the number of bytes of the output file outside tensors, for a budget of the whole
    file; `stretch` corrects the estimates of what is coded, see `make_plan`.

    Raises:
        PlanError: the recipe does not fit the model, or the budget is out of reach.
        DecompositionError: a weight holds NaN or infinity.
    """
    weights = {weight.name: weight for weight in job.checkpoint.weights}
    cuts = {
        weights[name]: cuts for name, cuts in cuts_for(job.recipe, job.checkpoint.weights).items()
    }
    spectra = job.analysis.spectra(cuts, job.weightings, job.progress)
    unfit: dict[str, Unfit] = {}
    while True:
        model = job.checkpoint
        plan = make_plan(
            job.recipe,
            model.weights,
            model.others,
            spectra,
            overhead,
            unfit,
            job.costs,
            stretch,
            job.beside_flash,
        )
        found = dict(_find_unfit(job, plan, unfit))
        if not found:
            notes = (*plan.notes, *job.notes)
            plan = replace(plan, notes=notes, model_flash=job.model_flash)
            calibration = job.calibration
            return plan if calibration is None else _note_calibration(plan, calibration)
        unfit |= found


def _find_unfit(job: Job, plan: Plan, known: Mapping[str, Unfit]) -> Iterator[tuple[str, Unfit]]:
    """The dense weights with a row that its store would lose, and the stores too coarse for it.

    A group of values shares one scale: beside a much larger row, a small one is rounded away, and
    the error of the whole weight does not show it. Entropy-coded recurrent weights may lose rows,
    as trains do: where an error costs more, steps are finer.
    """
    dense = [
        p
        for p in plan.changed
        if p.layout is not None
        and not p.layout.decomposes
        and not (p.estimated is not None and p.weight.role == "recurrent")
    ]
    for done, planned in enumerate(dense):
        weight, layout, store = planned.weight, planned.layout, planned.store
        assert layout is not None and store is not None  # it is not kept
        job.progress("round", done, len(dense), weight.name)
        weighting = job.weightings.get(weight.name)
        try:
            worst = job.analysis.dense_errors(weight, layout, store, weighting).worst_row_error
        except DecompositionError:
            if weight.name not in known:
                raise
            worst = inf  # out of range in a store that nobody asked for
        if worst > WORST_ROW and store.name not in known.get(weight.name, {}):
            yield weight.name, too_coarse(store, worst)
    if dense:
        job.progress("round", len(dense), len(dense))


def _note_calibration(plan: Plan, calibration: Calibration) -> Plan:
    """Add to a plan what the user should know of the weights with few inputs or none."""
    depending = [p for p in plan.changed if p.in_budget or (p.store and p.store.coarse)]
    notes = {p.weight.name: calibration.notes.get(p.weight.name) for p in depending}
    noted = [name for name, note in notes.items() if note]
    if not noted:
        return plan
    weights = tuple(
        replace(p, notes=(*p.notes, note)) if (note := notes.get(p.weight.name)) else p
        for p in plan.weights
    )
    least = min(calibration.inputs[name] for name in noted)
    line = (
        f"Calibration had too few inputs for {len(noted)} of {len(notes)} weights ({least:,} for "
        f"{min(noted, key=lambda name: calibration.inputs[name])}), so they lean on estimates made "
        "from the model alone. The notes of each weight say how much. Calibrate with more data."
    )
    return replace(plan, weights=weights, notes=(*plan.notes, line))


Made = tuple[StoredWeight, tuple[Spectrum, ...]]
"""A weight as it is stored, and the spectrum at each cut of its train."""

NOTHING_MADE: Mapping[str, Made] = {}


def meet_bytes(job: Job, overhead: int = 0, aim: float = 1.0) -> tuple[CompressedModel, Plan]:
    """Plan until the coded weights take what the budget allows them, within 1 %, and execute.

    What coded weights take shows only when they are rounded. A plan estimates it; the next one is
    corrected by what the one before would take. Between one that took too few bytes and one that
    took too many, it is interpolated in logarithms.

    Args:
        job: what to compress.
        overhead: as in `plan_weights`.
        aim: the fraction of the allowed bytes to aim at.
    """
    best, settled, stretch = None, False, aim
    below = above = (0.0, 0.0)  # stretch and what was used, of the nearest on either side
    for _ in range(_ROUNDS):
        plan = plan_weights(job, overhead, stretch)
        made = _make_coded(job, plan)
        used = _used_bytes(made, plan)
        same = best is not None and abs(used - best[0]) < _SLACK / 10
        settled = same and above == (0.0, 0.0)  # more do not help: none were ever too many
        if used <= aim and (best is None or used > best[0]):
            best = used, plan, made
        if not made or plan.byte_limit == inf:
            break
        if settled or (1 - _SLACK) * aim <= used <= aim:
            break
        below, above = (below, (stretch, used)) if used > aim else ((stretch, used), above)
        stretch = _stretch_for((1 - _SLACK / 4) * aim, below, above)
    if best is None:
        raise PlanError(
            f"the budget is out of reach: the weights took {used:.3f} times what it allows them. "
            "Allow a few more bytes."
        )
    _, plan, made = best
    if made and not settled and plan.byte_limit < inf:
        plan, made = _spend(job, plan, made, aim)
    return execute(job, plan, made), plan


def _stretch_for(aim: float, below: tuple[float, float], above: tuple[float, float]) -> float:
    """The stretch that should use `aim`, from pairs of a stretch and what it used; 0 is unknown."""
    if min(*below, *above) > 0.0:
        rise = log(above[1] / below[1]) / log(above[0] / below[0])
        return below[0] * exp(log(aim / below[1]) / rise)
    stretch, used = max(below, above)
    return stretch * aim / used


def _spend(job: Job, plan: Plan, made: dict[str, Made], aim: float) -> tuple[Plan, dict[str, Made]]:
    """Make all steps finer together, where no price leads to a plan that uses up its bytes.

    At two prices that hardly differ a weight may be a train or a matrix.
    """
    best, used = (plan, made), _used_bytes(made, plan)
    most = used
    for _ in range(_ROUNDS):
        missing = (1 - _SLACK / 2) * aim - used
        if abs(missing) <= _SLACK / 2 * aim:
            break
        values = sum(p.params for p in plan.changed if p.weight.name in made)
        # A bit of each value in every octave, and less where most of them are rounded to 0.
        plan = plan.finer(2.0 ** (missing * plan.byte_limit * 8 / values))
        made = _make_coded(job, plan)
        used = _used_bytes(made, plan)
        if most < used <= aim:
            best, most = (plan, made), used
    return best


def _make_coded(job: Job, plan: Plan) -> dict[str, Made]:
    """The weights of the budget whose bytes a plan could only estimate."""
    coded = [p for p in plan.changed if p.in_budget and p.estimated is not None]
    made: dict[str, Made] = {}
    results = side_by_side(partial(_make, job), coded)
    for done, planned in enumerate(coded):
        job.progress("round", done, len(coded), planned.weight.name)
        made[planned.weight.name] = next(results)
    return made


def _used_bytes(made: Mapping[str, Made], plan: Plan) -> float:
    """The fraction of the bytes left to them that coded weights will take; 0 without a limit."""
    others = sum(p.bytes for p in plan.changed if p.in_budget and p.weight.name not in made)
    taken = sum(part.about_bytes for one, _ in made.values() for part in one.parts)
    return taken / max(1.0, plan.byte_limit - others)


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
    results = side_by_side(partial(_make_and_measure, job, made), plan.changed)
    for done, planned in enumerate(plan.changed):
        job.progress("decompose", done, len(plan.changed), planned.weight.name)
        one, size, errors = next(results)
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


def meet_tolerance(job: Job, overhead: int = 0, aim: float = 1.0) -> CompressedModel:
    """Plan and execute until every measured error is within the tolerance, if there is one.

    A plan only estimates the rounding error: if the measured one exceeds the tolerance, the next
    plan aims lower by the same ratio.
    """
    asked = tolerance = job.recipe.budget.tolerance
    worst = 0.0
    for _ in range(_ROUNDS):
        recipe = replace(job.recipe, budget=replace(job.recipe.budget, tolerance=tolerance))
        try:
            model, plan = meet_bytes(replace(job, recipe=recipe), overhead, aim)
        except PlanError:
            if tolerance == asked:
                raise
            break  # the tolerance itself could be planned: do not report the lower aim
        chosen = {p.weight.name for p in plan.weights if p.in_budget and not p.explicit}
        errors = [w.relative_error for w in model.report.weights if w.name in chosen]
        worst = max(errors, default=0.0)
        if not asked or not tolerance or worst <= asked:
            return model
        tolerance *= 0.999 * asked / worst
    raise PlanError(
        f"budget.tolerance: {asked} is out of reach: the stored weights have an error of "
        f"{worst:.4g}. Allow a larger tolerance, or choose a store with more bits."
    )


def meet_size(
    job: Job, size: int, make: Callable[[Job, int], CompressedModel] = meet_tolerance
) -> CompressedModel:
    """Plan and execute until the file is as large as `size` allows.

    The header holds the report, whose length is known only afterwards, so each round plans with
    the length from the round before.

    Args:
        job: what to compress.
        size: bytes of the file.
        make: makes a model, given the bytes of its header.
    """
    reserved = _to_be_measured(job)
    overhead, room = header_bytes(job), size - reserved
    best, least = None, inf
    for _ in range(_ROUNDS):
        try:
            model = make(job, overhead)
        except PlanError:
            if best is None:
                raise
            break  # a longer header does not fit, and there is a model that does
        written = model.file_bytes
        least = min(least, written)
        if written <= room and (best is None or written > best.file_bytes):
            best = model
        header = _beside_tensors(job, model)
        if header == overhead or (best is model and written > 0.995 * room):
            break
        overhead = header
    if best is None:
        raise PlanError(
            f"budget: {size:,} bytes are out of reach: the smallest file found has "
            f"{least:,.0f}, and {reserved:,} more are reserved for the measurements. "
            "Allow a larger file, or decompose more weights."
        )
    return best


def settle_flash(job: Job) -> Job:
    """Find what the model takes in a device's flash beside the weights of a `flash` budget.

    Tables, biases, the head and padding show when a model is written as C, and the table of symbols
    may grow with a rank. So each round plans with what there was beside the weights of the last.

    Returns:
        The job whose plan takes most of the budget.

    Raises:
        PlanError: the budget is out of reach.
        RecipeError: the model cannot be written as C.
    """
    asked = job.recipe.budget.flash
    if asked is None:
        return job
    best, most, flash = job, 0, 0
    for _ in range(_ROUNDS):
        plan = plan_weights(job)
        flash = flash_bytes(execute(job, plan))
        if most < flash <= asked:
            best, most = replace(job, model_flash=flash), flash
        assert plan.flash is not None  # the target is c
        beside = flash - plan.flash.weights
        if beside == job.beside_flash or (1 - _SLACK) * asked <= most:
            break
        job = replace(job, beside_flash=beside)
    if not most:
        raise PlanError(
            f"budget.flash: {asked:,} bytes are out of reach: the plan nearest to them takes "
            f"{flash:,}. Allow a few more bytes."
        )
    return best


def flash_bytes(model: CompressedModel) -> int:
    """Bytes of constants of a model as C, in the arithmetic that it was planned for."""
    target = find_target("c")
    quantize = choose_rounding(target, None, model)
    return sum(pack_part(part, quantize).flash for part in choose_parts(model, target))


def fit_budget(job: Job, make: Callable[[float], CompressedModel]) -> CompressedModel:
    """Make a model until it is within its budget of bytes, aiming lower where it was not.

    What is coded takes other bytes when its values change, as a refit changes them.

    Args:
        job: what to compress.
        make: makes a model, given the fraction of the allowed bytes to aim at.
    """
    aim = 1.0
    for _ in range(_ROUNDS):
        model = make(aim)
        excess = _excess(job, model)
        if excess <= 1.0:
            return model
        aim *= (1 - _SLACK / 4) / excess
    raise PlanError(f"the budget is out of reach: the model takes {excess:.3f} times its bytes.")


def _excess(job: Job, model: CompressedModel) -> float:
    """The largest ratio of what a model takes to what its budget of bytes allows."""
    budget, weights = job.recipe.budget, model.report.totals["weights"]
    if not any(w.in_budget and w.store == CODED.name for w in model.report.weights):
        return 0.0
    ratios = [0.0]
    if budget.factor is not None:
        ratios.append(weights.bytes_after * budget.factor / weights.bytes_before)
    if (size := job.largest_file) is not None:
        ratios.append((model.file_bytes + _to_be_measured(job)) / size)
    return max(ratios)


def header_bytes(job: Job) -> int:
    """Bytes of the file outside tensors, measured on a model that was planned without them.

    What is added to the report when the model is measured is counted too.

    Raises:
        PlanError: not even the tensors fit the budget.
    """
    return _beside_tensors(job, execute(job, plan_weights(job)))


def _beside_tensors(job: Job, model: CompressedModel) -> int:
    tensors = model.report.totals["model"].bytes_after
    return model.file_bytes - tensors + _to_be_measured(job)


def _to_be_measured(job: Job) -> int:
    """Bytes for what is added to the report after the size is settled: drift, metrics, limits."""
    measured = (500 if job.task else 0) + (300 if job.conditions.control else 0)
    return 300 + 100 * len(job.model.stacks) + measured
