"""What an error of a weight costs where its inputs are known, and the trains that cost least.

The cost of V in place of W is E |D^(1/2) (W - V) x|^2 = |D^(1/2) (W - V) C^(1/2)|^2 (Frobenius),
with C the second moment of the inputs x and D diagonal. Where there is one row mode and one column
mode, both square roots go into the outer cores and TT-SVD of the whitened matrix is exact. In a
longer train a full C would multiply the ranks: there TT-SVD takes the part of D and C that is
diagonal and a product over the modes, and alternating least squares does the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce

import torch
from torch import Tensor

from ttcompress.planning.formats import Layout
from ttcompress.planning.spectrum import Cut, Spectrum
from ttcompress.trains.least_squares import alternated
from ttcompress.trains.train import Train
from ttcompress.trains.tt_svd import Decomposition, Factorization, factorize, spectrum_at, tt_svd

SWEEPS = 2
"""Of alternating least squares, each over all cores: more change the error by less than 1 %."""

_DAMPING = 1e-3
"""Added to C and D, as a fraction of their mean: what was never seen must not become free."""


@dataclass(frozen=True, eq=False)
class Weighting:
    """D and C of one weight, in float64 and damped.

    `rows` is D, (rows,): how much an error of each output counts. `moment` is C, (columns,
    columns): the second moment of the inputs.
    """

    rows: Tensor
    moment: Tensor

    @classmethod
    def damped(cls, rows: Tensor, moment: Tensor) -> Weighting:
        """From what was counted: no output and no direction of the inputs becomes free."""
        return cls(rows.double() + _DAMPING * rows.double().mean(), damped_moment(moment))

    @cached_property
    def roots(self) -> tuple[Tensor, Tensor]:
        """C^(1/2) and C^(-1/2)."""
        squares, vectors = torch.linalg.eigh(self.moment)
        root = squares.clamp(min=torch.finfo(torch.float64).tiny).sqrt()
        return (vectors * root) @ vectors.mT, (vectors / root) @ vectors.mT

    @cached_property
    def rounding(self) -> float:
        """The mean cost of a unit error in one input when later columns may answer for it.

        That is the mean squared diagonal of C's Cholesky factor: what rounding with error feedback
        leaves of the mean of C's diagonal (Frantar et al. 2023, OPTQ).
        """
        return float(torch.linalg.cholesky(self.moment).diagonal().square().mean())

    def apply(self, error: Tensor) -> Tensor:  # (rows, columns) -> D error C
        """The gradient of half the cost."""
        return self.rows[:, None] * (error @ self.moment)

    def cost(self, error: Tensor) -> float:
        """The squared error that counts."""
        return float((error * self.apply(error)).sum())


def damped_moment(moment: Tensor, damping: float = _DAMPING) -> Tensor:
    """A second moment with a fraction of its mean diagonal added to the diagonal; float64."""
    wide = moment.double()
    mean = wide.diagonal().mean()
    added = damping * (float(mean) or 1.0)
    return wide + added * torch.eye(len(wide), dtype=torch.float64)


def weighted_factorize(matrix: Tensor, cut: Cut, weighting: Weighting) -> Factorization:
    """The SVD of one unfolding in units of the cost.

    Exact for cuts that leave the columns whole. Where columns are split, C counts by its diagonal,
    and the singular vectors serve nobody.
    """
    tall = weighting.rows.sqrt()[:, None] * matrix.double()
    if cut[1] > 1:
        return Factorization(spectrum_at(tall * weighting.moment.diagonal().sqrt(), cut), ())
    found = factorize(_whitened(matrix, weighting), cut)
    rounding = float(tall.square().sum()) * weighting.rounding
    return Factorization(Spectrum(found.spectrum.values, rounding), found.vectors)


def _whitened(matrix: Tensor, weighting: Weighting) -> Tensor:  # D^(1/2) W C^(1/2), float64
    return weighting.rows.sqrt()[:, None] * matrix.double() @ weighting.roots[0]


def weighted_tt_svd(
    matrix: Tensor,  # (rows, columns), floating point
    layout: Layout,
    ranks: Sequence[int],
    weighting: Weighting,
    known: Mapping[Cut, Factorization] | None = None,
) -> Decomposition:
    """The train of given ranks that costs least: exact for two cores of an MPS, else a descent.

    Spectra are those of the matrix that TT-SVD was given; `known` are by `weighted_factorize`.
    """
    wide = matrix.double()
    if is_whitened(layout):
        found = tt_svd(_whitened(matrix, weighting), layout, ranks, known)
        left, right = found.train.cores
        inverse, tall = weighting.roots[1], weighting.rows.sqrt()[:, None]
        cores = (left / tall[None], (right[..., 0] @ inverse)[..., None])
        return Decomposition(Train(layout, cores), found.spectra)
    rows = _product_of_modes(weighting.rows.sqrt(), layout.row_modes)
    columns = _product_of_modes(weighting.moment.diagonal().sqrt(), layout.column_modes)
    scaled = reduce(torch.kron, rows)[:, None] * wide * reduce(torch.kron, columns)
    found = tt_svd(scaled, layout, ranks)
    train = Train(layout, _unscaled(found.train, rows, columns))
    return Decomposition(alternated(train, wide, weighting.apply, SWEEPS), found.spectra)


def is_whitened(layout: Layout) -> bool:
    """Whether the cost can be minimised exactly: one row mode, one column mode."""
    return layout.format == "mps" and layout.cores == 2


def _product_of_modes(scale: Tensor, modes: tuple[int, ...]) -> list[Tensor]:
    """One factor for each mode, whose outer product is nearest to a scale in the logarithm."""
    logs = scale.log().reshape(modes)
    mean = logs.mean()
    factors = []
    for k in range(len(modes)):
        others = [axis for axis in range(len(modes)) if axis != k]
        marginal = logs.mean(dim=others) if others else logs
        factors.append((marginal - mean * (1 - 1 / len(modes))).exp())
    return factors


def _unscaled(train: Train, rows: list[Tensor], columns: list[Tensor]) -> tuple[Tensor, ...]:
    if train.layout.format == "mps":
        scales = [factor[:, None] for factor in (*rows, *columns)]
    else:
        pairs = zip(rows, columns, strict=True)
        scales = [row[:, None, None] * column[:, None] for row, column in pairs]
    return tuple(core / scale for core, scale in zip(train.cores, scales, strict=True))
