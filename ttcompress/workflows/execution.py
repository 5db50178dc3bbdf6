"""Executing a plan: tensors and a `Plan` enter, stored weights with measured errors leave.

Nothing is decided here. Weights are read, decomposed and rounded one at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

import torch
from torch import Tensor

from ttcompress.errors import DecompositionError
from ttcompress.model.report import SPECTRUM_POINTS, CutSpectrum, Measured
from ttcompress.model.weights import Weight
from ttcompress.planning.plan import Plan, PlannedWeight
from ttcompress.planning.spectrum import Cut, Spectra, Spectrum
from ttcompress.system.memory import give_back
from ttcompress.system.progress import Progress, silent
from ttcompress.trains.stored import (
    NO_WEIGHTINGS,
    StoredWeight,
    Weightings,
    _parts,
    relative_errors,
)
from ttcompress.trains.train import ROWS
from ttcompress.trains.tt_svd import spectrum_at
from ttcompress.trains.weighting import Weighting, weighted_spectrum_at


class TensorSource(Protocol):
    """Whatever gives a tensor by name: a `Checkpoint`, or anything of its kind."""

    def tensor(self, name: str) -> Tensor:
        """The tensor of that name, in the source's dtype, on the CPU."""
        ...


def measure_spectra(
    source: TensorSource,
    weights: Mapping[str, Weight],
    cuts: Mapping[str, tuple[Cut, ...]],
    weightings: Weightings = NO_WEIGHTINGS,
    progress: Progress = silent,
) -> dict[str, Spectra]:
    """The singular values a plan needs: one pass over the weights named in `cuts`.

    Those of a weight with a weighting are in units of what its errors cost.

    Raises:
        DecompositionError: a weight holds NaN or infinity.
    """
    found: dict[str, Spectra] = {}
    for done, (name, wanted) in enumerate(cuts.items()):
        progress("spectra", done, len(cuts), name)
        found[name] = _spectra(source, weights[name], wanted, weightings.get(name))
        give_back()
    progress("spectra", len(cuts), len(cuts))
    return found


def _spectra(
    source: TensorSource, weight: Weight, cuts: tuple[Cut, ...], weighting: Weighting | None
) -> Spectra:
    matrix = finite_matrix(source, weight)
    if weighting is None:
        return {cut: spectrum_at(matrix, cut) for cut in cuts}
    return {cut: weighted_spectrum_at(matrix, cut, weighting) for cut in cuts}


def decompose_weights(
    source: TensorSource,
    plan: Plan,
    weightings: Weightings = NO_WEIGHTINGS,
    progress: Progress = silent,
) -> Iterator[tuple[StoredWeight, Measured]]:
    """Every weight the plan changes, stored and measured, in the plan's order.

    Raises:
        DecompositionError: a weight holds NaN or infinity, or overflows its store.
    """
    for done, planned in enumerate(plan.changed):
        progress("decompose", done, len(plan.changed), planned.weight.name)
        yield _decomposed(source, planned, weightings.get(planned.weight.name))
        give_back()
    progress("decompose", len(plan.changed), len(plan.changed))


def _decomposed(
    source: TensorSource, planned: PlannedWeight, weighting: Weighting | None
) -> tuple[StoredWeight, Measured]:
    matrix = finite_matrix(source, planned.weight)
    try:
        stored, spectra = _stored(matrix, planned, weighting)
    except DecompositionError as error:
        raise error.at(planned.weight.name) from error
    lost, gate_errors = relative_errors(matrix, stored.blocks(), planned.weight)
    cuts = zip(spectra, planned.ranks, strict=True)
    spectrum = tuple(_drawn(spectrum, rank) for spectrum, rank in cuts)
    return stored, Measured(lost, gate_errors, spectrum)


def finite_matrix(source: TensorSource, weight: Weight) -> Tensor:
    """Read a weight and refuse what no decomposition can answer for.

    Raises:
        DecompositionError: the weight holds NaN or infinity.
    """
    matrix = source.tensor(weight.name)
    bad = sum(int((~rows.isfinite()).sum()) for rows in torch.split(matrix, ROWS))
    if bad:
        raise DecompositionError(
            f"{weight.name}: {bad} of {weight.params} values are NaN or infinite. "
            "The model is broken there: train it again, or keep this weight by a rule."
        )
    return matrix


def _stored(
    matrix: Tensor, planned: PlannedWeight, weighting: Weighting | None
) -> tuple[StoredWeight, tuple[Spectrum, ...]]:
    if planned.layout is None or planned.store is None:
        raise ValueError(f"{planned.weight.name} is kept")
    parts, spectra = _parts(matrix, planned.layout, planned.ranks, planned.store, weighting)
    return StoredWeight(planned.weight, planned.layout, parts), spectra


def _drawn(spectrum: Spectrum, rank: int) -> CutSpectrum:
    """At most `SPECTRUM_POINTS` values for a picture: even steps, and both sides of the cut."""
    count = len(spectrum.values)
    step = max(1, -(-count // (SPECTRUM_POINTS - 3)))
    marks = {*range(0, count, step), rank - 1, rank, count - 1}
    indices = tuple(sorted(index for index in marks if 0 <= index < count))
    return CutSpectrum(indices, tuple(_short(spectrum.values[i]) for i in indices), rank)


def _short(value: float) -> float:
    return float(f"{value:.3g}")
