"""A weight as it is stored: rounded cores or a rounded matrix, and the error against its source."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from ttcompress.errors import ArtifactError
from ttcompress.model.weights import Weight
from ttcompress.planning.formats import Layout
from ttcompress.planning.spectrum import Cut, Spectrum
from ttcompress.stores import Encoded, Store
from ttcompress.system.memory import machine_memory
from ttcompress.trains.feedback import round_matrix, round_train
from ttcompress.trains.train import Train
from ttcompress.trains.tt_svd import Factorization, tt_svd
from ttcompress.trains.weighting import Weighting, weighted_tt_svd

_ROWS = 256
"""Of a matrix that are looked at together: no whole copy of it is needed to measure an error."""


@dataclass(frozen=True, eq=False)
class StoredWeight:
    """A weight as it is stored: one `Encoded` for each core, or one for a dense matrix."""

    weight: Weight
    layout: Layout | None
    parts: tuple[Encoded, ...]

    @property
    def bytes(self) -> int:
        """Bytes of all its parts."""
        return sum(part.bytes for part in self.parts)

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


def store_weight(
    matrix: Tensor,  # (rows, columns)
    weight: Weight,
    layout: Layout | None,
    ranks: Sequence[int],
    store: Store,
    weighting: Weighting | None = None,
    known: Mapping[Cut, Factorization] | None = None,
) -> tuple[StoredWeight, tuple[Spectrum, ...]]:
    """Decompose a matrix and round it; with a weighting, at the least cost on its inputs.

    Returns:
        The weight as stored, and the spectrum at each cut of its train.

    Raises:
        DecompositionError: a value is outside what the store can hold.
    """
    if layout is None:
        if weighting is None:
            return StoredWeight(weight, None, (store.encode(matrix),)), ()
        return StoredWeight(weight, None, (round_matrix(matrix, store, weighting.moment),)), ()
    if weighting is None:
        found = tt_svd(matrix, layout, ranks, known)
        parts = tuple(map(store.encode, found.train.cores))
    else:
        found = weighted_tt_svd(matrix, layout, ranks, weighting, known)
        parts = round_train(found.train, matrix, store, weighting)
    return StoredWeight(weight, layout, parts), found.spectra


def store_alike(matrix: Tensor, like: StoredWeight, weighting: Weighting) -> StoredWeight:
    """Another matrix, stored as a weight is: the same layout, ranks and store, the same bytes."""
    ranks = [part.shape[-1] for part in like.parts[:-1]]
    store = like.parts[0].store
    return store_weight(matrix, like.weight, like.layout, ranks, store, weighting)[0]
