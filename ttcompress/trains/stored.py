"""A weight as it is stored, `StoredWeight`: its rounded cores, and their error."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from ttcompress.errors import ArtifactError
from ttcompress.model.report import Errors
from ttcompress.model.weights import Weight
from ttcompress.planning.formats import Layout
from ttcompress.planning.spectrum import Spectrum
from ttcompress.stores import Encoded, Store
from ttcompress.system.memory import machine_memory
from ttcompress.trains.feedback import round_train
from ttcompress.trains.formats import TRAINS, train_of
from ttcompress.trains.train import ROWS, Train
from ttcompress.trains.tt_svd import NO_FACTORIZATIONS, Factorizations
from ttcompress.trains.weighting import Weighting


@dataclass(frozen=True, eq=False)
class StoredWeight:
    """A weight as it is stored: one `Encoded` for each core of its layout.

    `zero_rows` and `zero_columns` are those where a train's matrix is zero whatever its cores are:
    the product of rounded cores alone would not keep them. A dense weight needs none, because its
    store keeps zeros.
    """

    weight: Weight
    layout: Layout
    parts: tuple[Encoded, ...]
    zero_rows: tuple[int, ...] = ()
    zero_columns: tuple[int, ...] = ()

    @property
    def bytes(self) -> int:
        """Bytes of all its parts."""
        return sum(part.bytes for part in self.parts)

    @property
    def ranks(self) -> tuple[int, ...]:
        """Interior ranks: one fewer than cores."""
        return tuple(part.shape[-1] for part in self.parts[:-1])

    def train(self) -> Train:
        """The train of the stored cores, in float32."""
        masks = map(_mask, (self.zero_rows, self.zero_columns), self.weight.shape)
        return train_of(self.layout, (part.values() for part in self.parts), *masks)

    def dense(self, dtype: torch.dtype | None = None) -> Tensor:  # (rows, columns)
        """The matrix, in its source's dtype unless another is given; computed in float64.

        Raises:
            ArtifactError: it would not fit into memory; damaged cores may claim any shape.
        """
        needed, there = 8 * self.weight.params, machine_memory()
        if needed > there:
            raise ArtifactError(
                f"{self.weight.name}: rebuilding it takes {needed:,} bytes, but this machine has "
                f"{there:,}. The file is damaged, or needs a larger machine."
            )
        matrix = torch.empty(self.weight.shape, dtype=dtype or getattr(torch, self.weight.dtype))
        for place, block in zip(torch.split(matrix, ROWS), self.blocks(), strict=True):
            place.copy_(block)
        return matrix

    def blocks(self) -> Iterator[Tensor]:  # (some rows, columns) in float64
        """The matrix from its top to its bottom, a few rows at a time."""
        return self.train().blocks()


def measure_errors(
    matrix: Tensor,  # (rows, columns), the source
    stored: Iterable[Tensor],  # the stored matrix, in blocks of rows from the top, float64
    weight: Weight,
) -> Errors:
    """Compare a stored matrix with its source, in float64.

    What is all zeros has error 0 if it is stored as zeros, and infinity otherwise. There are no
    gate errors unless there are gates.
    """
    rows = torch.empty(2, len(matrix), dtype=torch.float64)
    start, worst, largest = 0, 0.0, 0.0
    for block in stored:
        end = start + len(block)
        wide = matrix[start:end].double()
        lost = wide - block
        torch.sum(lost.square(), 1, out=rows[0, start:end])
        torch.sum(wide.square(), 1, out=rows[1, start:end])
        worst = max(worst, _largest(lost))
        largest = max(largest, _largest(wide))
        start = end
    squares = [gate.sum(1).tolist() for gate in rows.chunk(weight.gates, 1)]
    whole = sqrt(_ratio(sum(lost for lost, _ in squares), sum(norm for _, norm in squares)))
    gates = tuple(sqrt(_ratio(*gate)) for gate in squares) if weight.gates > 1 else ()
    return Errors(whole, gates, worst_row_error(rows[0], rows[1], weight), _ratio(worst, largest))


def worst_row_error(
    lost: Tensor,  # (rows,), the squared norm of each row's error, float64
    norms: Tensor,  # (rows,), the squared norm of each row, float64
    weight: Weight,
) -> float:
    """The largest relative error of any row; 0 for a zero row that is kept as zeros.

    The rows of a table that is looked up all feed the same inputs: an error in one that is smaller
    than usual counts relative to the median. Elsewhere each row is an output of its own, unless
    it is nothing but the residue of float32 beside the largest.
    """
    residue = torch.finfo(torch.float32).eps ** 2
    floor = norms.median() if weight.looked_up else residue * norms.max()
    beside = torch.where(norms > 0, norms.clamp_min(floor), 0.0)
    return sqrt((lost / beside).nan_to_num(nan=0.0, posinf=torch.inf).max().item())


def _largest(values: Tensor) -> float:
    low, high = values.aminmax()
    return max(-low.item(), high.item())


def _ratio(lost: float, norm: float) -> float:
    if norm == 0.0:
        return 0.0 if lost == 0.0 else float("inf")
    return lost / norm


def store_weight(
    matrix: Tensor,  # (rows, columns)
    weight: Weight,
    layout: Layout,
    ranks: Sequence[int],
    store: Store,
    weighting: Weighting | None = None,
    known: Factorizations = NO_FACTORIZATIONS,
) -> tuple[StoredWeight, tuple[Spectrum, ...]]:
    """Decompose a matrix and round it; with a weighting, to the least cost on its inputs.

    Returns:
        The weight as stored, and the spectrum at each cut of its train.

    Raises:
        DecompositionError: a value is out of the range of the store.
    """
    found = TRAINS[layout.format].decompose(matrix, layout, ranks, weighting, known)
    parts = round_train(found.train, matrix, store, weighting)
    if not layout.decomposes:
        return StoredWeight(weight, layout, parts), found.spectra
    rows, columns = ((matrix == 0).all(axis).nonzero()[:, 0].tolist() for axis in (1, 0))
    return StoredWeight(weight, layout, parts, tuple(rows), tuple(columns)), found.spectra


def _mask(places: Sequence[int], side: int) -> Tensor | None:  # (side,), bool
    if not places:
        return None
    mask = torch.zeros(side, dtype=torch.bool)
    mask[list(places)] = True
    return mask


def keep_zeros(matrix: Tensor, source: Tensor, layout: Layout) -> Tensor:  # (rows, columns) all
    """Set to zero what a layout keeps zero of the source: each zero, or whole rows and columns."""
    zero = source == 0
    if layout.decomposes:
        zero = zero.all(1, keepdim=True) | zero.all(0)
    return matrix.masked_fill(zero, 0.0)


def store_alike(matrix: Tensor, like: StoredWeight, weighting: Weighting) -> StoredWeight:
    """Store another matrix like a stored weight: same layout, ranks and store, so as many bytes."""
    store = like.parts[0].store
    return store_weight(matrix, like.weight, like.layout, like.ranks, store, weighting)[0]
