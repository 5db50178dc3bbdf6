"""A checkpoint and a recipe enter; a compressed model within its budget leaves.

A plan decides before anything is decomposed. Two things only the result can tell: the error of the
rounding, for a tolerance, and the length of the file's header, for a size. Where one of them is
over, the weights are planned and decomposed again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

from torch import Tensor

from ttcompress.artifact import CompressedModel, keyed_parts
from ttcompress.checkpoint import Checkpoint
from ttcompress.errors import CheckpointError, PlanError
from ttcompress.model.weights import OtherTensor, RecurrentStack, Weight
from ttcompress.planning.plan import Plan
from ttcompress.planning.planner import cuts_for, make_plan
from ttcompress.planning.spectrum import Spectra
from ttcompress.recipe import Recipe
from ttcompress.results.from_plan import build_report
from ttcompress.system.progress import Progress, silent
from ttcompress.trains.stored import NO_WEIGHTINGS, StoredWeight, Weightings
from ttcompress.workflows.execution import decompose_weights, measure_spectra

_ROUNDS = 6


@dataclass(frozen=True, eq=False)
class Known:
    """What was found out about the weights before they are decomposed, by name."""

    spectra: Mapping[str, Spectra]
    weightings: Weightings


def decompose(
    checkpoint: Checkpoint,
    recipe: Recipe,
    progress: Progress = silent,
    weightings: Weightings = NO_WEIGHTINGS,
) -> CompressedModel:
    """Plan and execute, until what only the result can tell (errors, header) is within budget."""
    known = Known(spectra_for(checkpoint, recipe, progress, weightings), weightings)
    if recipe.budget.size is not None:
        return _within_size(checkpoint, recipe, known, recipe.budget.size, progress)
    return _within_tolerance(checkpoint, recipe, known, progress)


def spectra_for(
    checkpoint: Checkpoint,
    recipe: Recipe,
    progress: Progress = silent,
    weightings: Weightings = NO_WEIGHTINGS,
) -> dict[str, Spectra]:
    """The singular values this recipe needs to be planned."""
    weights = {weight.name: weight for weight in checkpoint.weights}
    cuts = cuts_for(recipe, checkpoint.weights)
    return measure_spectra(checkpoint, weights, cuts, weightings, progress)


def header_bytes(
    checkpoint: Checkpoint, recipe: Recipe, known: Known, progress: Progress = silent
) -> int:
    """Bytes of the file beside the tensors: measured on a model planned as if there were none.

    Those that are added when the model is measured are counted too.

    Raises:
        PlanError: not even the tensors fit the budget.
    """
    made = _plan(checkpoint, recipe, known.spectra)
    return _beside_tensors(execute(checkpoint, recipe, made, known.weightings, progress), recipe)


def execute(
    checkpoint: Checkpoint,
    recipe: Recipe,
    plan: Plan,
    weightings: Weightings = NO_WEIGHTINGS,
    progress: Progress = silent,
) -> CompressedModel:
    """Carry out a plan: decompose, round, measure, and keep the rest."""
    results = list(decompose_weights(checkpoint, plan, weightings, progress))
    changed = {stored.weight.name for stored, _ in results}
    tensors: list[Weight | OtherTensor] = [*checkpoint.weights, *checkpoint.others]
    kept = {t.name: checkpoint.tensor(t.name) for t in tensors if t.name not in changed}
    _check_names((stored for stored, _ in results), kept)
    return CompressedModel(
        weights=tuple(stored for stored, _ in results),
        kept=kept,
        ties={t.name: t.names for t in tensors if len(t.names) > 1},
        stacks=checkpoint.stacks,
        source_paths=checkpoint.source_paths,
        carried=checkpoint.carried,
        report=build_report(
            checkpoint, recipe, plan, [measured for _, measured in results], _broken(kept)
        ),
    )


def _check_names(weights: Iterable[StoredWeight], kept: Mapping[str, Tensor]) -> None:
    """No tensor of the model has the name that a core gets, and would be lost."""
    for stored in weights:
        for key, part in keyed_parts(stored):
            for name in kept.keys() & {key + suffix for suffix in part.tensors}:
                raise CheckpointError(
                    f"{name}: is a tensor of the model, and a core of {stored.weight.name} gets "
                    "that name. Rename the tensor, or keep the weight by a rule: format: keep."
                )


def _broken(kept: Mapping[str, Tensor]) -> Iterator[str]:
    """What is no weight is kept whatever it holds; infinity can be meant, as in a mask."""
    for name, tensor in kept.items():
        if tensor.is_floating_point() and bool(tensor.float().isnan().any()):
            yield f"{name} holds NaN, and is kept as it is"


def _plan(
    checkpoint: Checkpoint, recipe: Recipe, spectra: Mapping[str, Spectra], overhead: int = 0
) -> Plan:
    return make_plan(recipe, checkpoint.weights, checkpoint.others, spectra, overhead)


def _within_tolerance(
    checkpoint: Checkpoint,
    recipe: Recipe,
    known: Known,
    progress: Progress,
    overhead: int = 0,
) -> CompressedModel:
    """Plan and execute until every measured error is within the tolerance.

    A plan knows the rounding error only as an expectation: where the measured one is above the
    tolerance, the next plan aims as much lower.
    """
    asked = aim = recipe.budget.tolerance
    worst = 0.0
    for _ in range(_ROUNDS):
        aimed = replace(recipe, budget=replace(recipe.budget, tolerance=aim))
        try:
            made = _plan(checkpoint, aimed, known.spectra, overhead)
        except PlanError:
            if aim == asked:
                raise
            break  # what was asked could be planned: the lower aim is not the user's to hear of
        model = execute(checkpoint, recipe, made, known.weightings, progress)
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
    known: Known,
    size: int,
    progress: Progress,
) -> CompressedModel:
    """Plan and execute until the file is as large as `size` allows.

    The header holds the report, whose length is known only afterwards: each round plans with the
    header that the round before really had.
    """
    reserved = _to_be_measured(checkpoint.stacks, recipe)
    overhead, room = header_bytes(checkpoint, recipe, known, progress), size - reserved
    best, least = None, inf
    for _ in range(_ROUNDS):
        try:
            model = _within_tolerance(checkpoint, recipe, known, progress, overhead)
        except PlanError:
            if best is None:
                raise
            break  # a longer header does not fit, and there is a model that does
        written = model.file_bytes
        least = min(least, written)
        if written <= room and (best is None or written > best.file_bytes):
            best = model
        header = _beside_tensors(model, recipe)
        if header == overhead or (best is model and written > 0.995 * room):
            break
        overhead = header
    if best is None:
        raise PlanError(
            f"budget.size: {size:,} bytes asked, the smallest file found has {least:,.0f}, and "
            f"{reserved:,} more are kept free for what is measured. "
            "Ask for a larger file, or decompose more weights."
        )
    return best


def _beside_tensors(model: CompressedModel, recipe: Recipe) -> int:
    tensors = model.report.totals["model"].bytes_after
    return model.file_bytes - tensors + _to_be_measured(model.stacks, recipe)


def _to_be_measured(stacks: Sequence[RecurrentStack], recipe: Recipe) -> int:
    """Bytes for what is added to the report after the size is settled: drift, metrics, limits."""
    return 300 + 100 * len(stacks) + (500 if recipe.task else 0)
