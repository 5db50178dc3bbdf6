"""TT-SVD: `tt_svd` finds the cores of a matrix, `spectrum_at` its singular values alone.

Oseledets, "Tensor-train decomposition", SIAM J. Sci. Comput. 33 (2011), algorithm 1. An MPO is the
same sweep on the interleaved tensor. Rounding to a store comes later, in `feedback`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ttcompress.planning.formats import Layout
from ttcompress.planning.spectrum import Cut, Spectrum

_BLOCK = 1 << 20
"""Values converted to float64 at a time (8 MB): a large matrix is never copied as a whole."""

_FAITHFUL = 1e-3
"""The ratio of singular values up to which the Gram matrix gives orthogonal vectors on both sides.

A product of two of them is off by some 2e-16 of the largest squared: at this ratio, 2e-10.
"""

_GRAM_BANDS = 6
"""Bands of the lower triangle: with 6, 7/12 of the work of the full product."""


@dataclass(frozen=True, eq=False)
class Factorization:
    """The SVD of one unfolding: its singular values, and the vectors that `tt_svd` projects on.

    `vectors` are the eigenvectors of the Gram matrix of the smaller side, (n, n), the largest
    first; for a float64 matrix they are U and V^T.
    """

    spectrum: Spectrum
    vectors: tuple[Tensor, ...]

    @property
    def bytes(self) -> int:
        """Memory of the vectors, in bytes."""
        return sum(part.numel() * part.element_size() for part in self.vectors)


Factorizations = Mapping[Cut, Factorization]
"""Factorizations of one matrix by the cut of its unfolding."""

NO_FACTORIZATIONS: Factorizations = {}


def tt_svd(
    matrix: Tensor,  # (rows, columns), floating point
    layout: Layout,
    ranks: Sequence[int],
    known: Factorizations = NO_FACTORIZATIONS,
) -> tuple[tuple[Tensor, ...], tuple[Spectrum, ...]]:
    """Find the cores of a matrix in float64, and the singular values at each cut of the sweep.

    The squared error equals the sum of the discarded squared singular values. All cores but the
    last are left-orthogonal; the last carries the norm.

    Args:
        matrix: what to decompose.
        layout: the format and the modes.
        ranks: caps on the interior ranks; those above the attainable are lowered, and a rank is
            never above the number of singular values.
        known: factorizations of the matrix by cut; with two cores, the one needed is reused.

    >>> from ttcompress.planning.formats import MpsLayout
    >>> cores, spectra = tt_svd(torch.eye(4), MpsLayout((2, 2), (4,)), (2, 3))
    >>> [tuple(core.shape) for core in cores]
    [(1, 2, 2), (2, 2, 3), (3, 4, 1)]
    """
    caps = layout.attainable(ranks)
    rest = tensorize(matrix, layout)
    # Only a single cut is sure to be the unfolding that `factorize` saw: in a longer MPO the sweep
    # orders the columns differently.
    first = known.get(layout.cuts[0]) if len(layout.cuts) == 1 else None
    exact = matrix.dtype == torch.float64
    cores: list[Tensor] = []
    spectra: list[Spectrum] = []
    rank = 1
    for modes, size, cap in zip(layout.core_modes, layout.sizes, caps, strict=False):
        unfolded = rest.reshape(rank * size, -1)  # (rank before * modes of the core, all others)
        found, first = first or _factorize(unfolded, exact), None
        left, rest = _cut(unfolded, found, cap, exact)
        cores.append(left.reshape(rank, *modes, -1))
        spectra.append(found.spectrum)
        rank = left.shape[1]
    cores.append(rest.double().reshape(rank, *layout.core_modes[-1], 1))
    return tuple(cores), tuple(spectra)


def tensorize(matrix: Tensor, layout: Layout) -> Tensor:  # (rows, columns) -> layout.sizes
    """Reshape the matrix into the tensor to decompose: one axis for the modes of each core."""
    axes = [axis for core in layout.core_axes for axis in core]
    tensor = matrix.reshape(layout.row_modes + layout.column_modes)
    return tensor.permute(axes).reshape(layout.sizes)


def matricize(
    tensor: Tensor, layout: Layout
) -> Tensor:  # any shape of that size -> (rows, columns)
    """The inverse of `tensorize`."""
    axes = [axis for core in layout.core_axes for axis in core]
    modes = layout.row_modes + layout.column_modes
    places = sorted(range(len(axes)), key=axes.__getitem__)  # the inverse permutation
    return tensor.reshape([modes[axis] for axis in axes]).permute(places).reshape(layout.shape)


def factorize(matrix: Tensor, cut: Cut) -> Factorization:  # matrix: (rows, columns)
    """The SVD of one unfolding, for `tt_svd`; see `ttcompress.planning.spectrum` for cuts."""
    return _factorize(_unfold(matrix, cut), matrix.dtype == torch.float64)


def spectrum_at(matrix: Tensor, cut: Cut) -> Spectrum:  # matrix: (rows, columns)
    """The singular values of one unfolding, in a third of the time of `factorize`."""
    unfolded = _unfold(matrix, cut)
    if matrix.dtype == torch.float64:
        return _spectrum(torch.linalg.svdvals(unfolded))
    return _spectrum(torch.linalg.eigvalsh(_gram(_tall(unfolded))).clamp(min=0).sqrt().flip(0))


def _unfold(matrix: Tensor, cut: Cut) -> Tensor:  # (rows, columns) -> (R1 * C1, R2 * C2)
    rows, columns = matrix.shape
    (row, column), total = cut, matrix.numel()
    split = matrix.reshape(row, rows // row, column, columns // column)
    return split.permute(0, 2, 1, 3).reshape(row * column, total // (row * column))


def _tall(matrix: Tensor) -> Tensor:
    """The matrix or its transpose, whichever has no more columns than rows."""
    return matrix if matrix.shape[0] >= matrix.shape[1] else matrix.mT


def _factorize(matrix: Tensor, exact: bool) -> Factorization:
    """Take the SVD itself if `exact`, otherwise the eigenvectors of the Gram matrix in float64.

    With A = U S V^T, A^T A = V S^2 V^T. Squaring loses singular values below 1e-8 of the largest,
    which is under the rounding error of a float32 matrix, and the product of the cores stays an
    orthogonal projection of the matrix. V is orthogonal; A V / S is not, for the smallest, so there
    `_cut` makes it orthogonal.
    """
    if exact:
        u, s, vt = torch.linalg.svd(matrix.double(), full_matrices=False)
        return Factorization(_spectrum(s), (u, vt))
    squares, vectors = torch.linalg.eigh(_gram(_tall(matrix)))
    return Factorization(_spectrum(squares.clamp(min=0).sqrt().flip(0)), (vectors.flip(1),))


def _cut(
    matrix: Tensor, found: Factorization, cap: int, exact: bool
) -> tuple[Tensor, Tensor]:  # (rows, rank), (rank, columns) in float64
    """Split matrix = left @ right at a rank of at most `cap`, with orthonormal columns in left."""
    rank = min(cap, len(found.spectrum.values))
    if exact:
        u, vt = found.vectors
        values = torch.tensor(found.spectrum.values[:rank], dtype=torch.float64)
        return u[:, :rank], values[:, None] * vt[:rank]
    (vectors,) = found.vectors
    tall, basis = _tall(matrix), vectors[:, :rank]
    projected = torch.empty(len(tall), rank, dtype=torch.float64)
    for place, block in zip(
        _row_blocks(projected, columns=tall.shape[1]), _row_blocks(tall), strict=True
    ):
        torch.matmul(block.double(), basis, out=place)
    if tall is not matrix:
        return basis, projected.mT
    norms = torch.linalg.vector_norm(projected, dim=0)
    if float(norms.min()) < _FAITHFUL * float(norms.max()):
        left, right = torch.linalg.qr(projected)
        return left, right @ basis.mT
    projected /= torch.where(norms > 0, norms, 1.0)
    return projected, norms[:, None] * basis.mT


def _gram(tall: Tensor) -> Tensor:  # (rows, columns) -> (columns, columns), float64
    """The Gram matrix, in its lower triangle only: the eigensolvers read no more."""
    columns = tall.shape[1]
    step = max(64, -(-columns // _GRAM_BANDS))
    gram = torch.zeros(columns, columns, dtype=torch.float64)
    for block in _row_blocks(tall):
        wide = block.double()
        for start in range(0, columns, step):
            end = min(columns, start + step)
            gram[start:end, :end].addmm_(wide[:, start:end].mT, wide[:, :end])
    return gram


def _row_blocks(matrix: Tensor, columns: int | None = None) -> Iterator[Tensor]:
    """Blocks of rows of `_BLOCK` values, or as many rows as a matrix of `columns` would have."""
    return iter(torch.split(matrix, max(1, _BLOCK // max(1, columns or matrix.shape[1]))))


def _spectrum(values: Tensor) -> Spectrum:
    return Spectrum(tuple(values.tolist()))
