"""Executing a plan: tensors and a `Plan` enter, stored weights with measured errors leave.

Nothing is decided here. Weights are read, decomposed and rounded one at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Protocol

import torch
from torch import Tensor

from ttcompress.errors import ArtifactError, DecompositionError
from ttcompress.memory import give_back, machine_memory
from ttcompress.plan.layout import Layout
from ttcompress.plan.model import Plan, PlannedWeight
from ttcompress.plan.spectrum import Cut, Spectra, Spectrum
from ttcompress.progress import Progress, silent
from ttcompress.report.model import SPECTRUM_POINTS, CutSpectrum, Measured
from ttcompress.stores import Store
from ttcompress.trains.feedback import round_matrix, round_train
from ttcompress.trains.rounding import Rounded, round_to
from ttcompress.trains.train import Train
from ttcompress.trains.tt_svd import spectrum_at, tt_svd
from ttcompress.trains.weighting import Weighting, weighted_spectrum_at, weighted_tt_svd
from ttcompress.weights import Weight

Weightings = Mapping[str, Weighting]
"""What errors cost, by the names of the weights whose inputs are known."""

NO_WEIGHTINGS: Weightings = {}

_ROWS = 256
"""Of a matrix that are looked at together: no whole copy of it is needed to measure an error."""


class TensorSource(Protocol):
    """Whatever gives a tensor by name: a `Checkpoint`, or anything of its kind."""

    def tensor(self, name: str) -> Tensor:
        """The tensor of that name, in the source's dtype, on the CPU."""
        ...


@dataclass(frozen=True, eq=False)
class StoredWeight:
    """A weight as it is stored: one `Rounded` for each core, or one for a dense matrix."""

    weight: Weight
    layout: Layout | None
    parts: tuple[Rounded, ...]

    def train(self) -> Train:
        """The train of the stored cores, in float32; a dense weight has none."""
        if self.layout is None:
            raise ValueError(f"{self.weight.name} is dense")
        return Train(self.layout, tuple(part.values() for part in self.parts))

    def dense(self, dtype: torch.dtype | None = None) -> Tensor:  # (rows, columns)
        """The matrix, in its source's dtype unless another is given; computed in float64.

        Raises:
            ArtifactError: it would not fit into this machine: cores can claim any shape.
        """
        needed, there = 8 * self.weight.params, machine_memory()
        if needed > there:
            raise ArtifactError(
                f"{self.weight.name}: rebuilding it takes {needed:,} bytes, and this machine has "
                f"{there:,}. The file is damaged, or meant for a larger machine."
            )
        matrix = torch.empty(self.weight.shape, dtype=dtype or getattr(torch, self.weight.dtype))
        for place, block in zip(torch.split(matrix, _ROWS), self.blocks(), strict=True):
            place.copy_(block)
        return matrix

    def blocks(self) -> Iterator[Tensor]:  # (some rows, columns) in float64
        """The matrix from its top to its bottom, a few rows at a time."""
        if self.layout is None:
            yield from (block.double() for block in torch.split(self.parts[0].values(), _ROWS))
            return
        train = Train(self.layout, tuple(part.values().double() for part in self.parts))
        if self.layout.format == "mps":
            left, right = train.factors()
            yield from (block @ right for block in torch.split(left, _ROWS))
        else:
            yield from torch.split(train.to_dense(), _ROWS)


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
    bad = sum(int((~rows.isfinite()).sum()) for rows in torch.split(matrix, _ROWS))
    if bad:
        raise DecompositionError(
            f"{weight.name}: {bad} of {weight.params} values are NaN or infinite. "
            "The model is broken there: train it again, or keep this weight by a rule."
        )
    return matrix


def relative_errors(
    matrix: Tensor,  # (rows, columns), the source
    stored: Iterable[Tensor],  # what is kept of it, in blocks of rows from the top, float64
    weight: Weight,
) -> tuple[float, tuple[float, ...]]:
    """Relative Frobenius error of the whole and of each gate (none unless there are gates).

    An all-zero block has error 0 when it is kept as zeros, and infinity otherwise.
    """
    rows = torch.empty(2, len(matrix), dtype=torch.float64)
    start = 0
    for block in stored:
        end = start + len(block)
        wide = matrix[start:end].double()
        torch.sum((wide - block).square(), 1, out=rows[0, start:end])
        torch.sum(wide.square(), 1, out=rows[1, start:end])
        start = end
    squares = [gate.sum(1).tolist() for gate in rows.chunk(weight.gates, 1)]
    whole = _ratio(sum(lost for lost, _ in squares), sum(norm for _, norm in squares))
    gates = tuple(_ratio(lost, norm) for lost, norm in squares) if weight.gates > 1 else ()
    return whole, gates


def _ratio(lost: float, norm: float) -> float:
    if norm == 0.0:
        return 0.0 if lost == 0.0 else float("inf")
    return sqrt(lost / norm)


def store_weight(matrix: Tensor, like: StoredWeight, weighting: Weighting) -> StoredWeight:
    """Another matrix, stored as a weight is: the same layout, ranks and store, the same bytes."""
    store = like.parts[0].store
    ranks = tuple(part.shape[-1] for part in like.parts[:-1])
    parts, _ = _parts(matrix, like.layout, ranks, store, weighting)
    return StoredWeight(like.weight, like.layout, parts)


def _stored(
    matrix: Tensor, planned: PlannedWeight, weighting: Weighting | None
) -> tuple[StoredWeight, tuple[Spectrum, ...]]:
    if planned.store is None:
        raise ValueError(f"{planned.weight.name} is kept")
    parts, spectra = _parts(matrix, planned.layout, planned.ranks, planned.store, weighting)
    return StoredWeight(planned.weight, planned.layout, parts), spectra


def _parts(
    matrix: Tensor,
    layout: Layout | None,
    ranks: tuple[int, ...],
    store: Store,
    weighting: Weighting | None,
) -> tuple[tuple[Rounded, ...], tuple[Spectrum, ...]]:
    """Decompose and round, for the least cost on known inputs where there is a weighting."""
    if layout is None:
        moment = weighting.moment if weighting else None
        rounded = round_to(matrix, store) if moment is None else round_matrix(matrix, store, moment)
        return (rounded,), ()
    if weighting is None:
        found = tt_svd(matrix, layout, ranks)
        return tuple(round_to(core, store) for core in found.train.cores), found.spectra
    found = weighted_tt_svd(matrix, layout, ranks, weighting)
    return round_train(found.train, matrix, store, weighting), found.spectra


def _drawn(spectrum: Spectrum, rank: int) -> CutSpectrum:
    """At most `SPECTRUM_POINTS` values for a picture: even steps, and both sides of the cut."""
    count = len(spectrum.values)
    step = max(1, -(-count // (SPECTRUM_POINTS - 3)))
    marks = {*range(0, count, step), rank - 1, rank, count - 1}
    indices = tuple(sorted(index for index in marks if 0 <= index < count))
    return CutSpectrum(indices, tuple(_short(spectrum.values[i]) for i in indices), rank)


def _short(value: float) -> float:
    return float(f"{value:.3g}")
