"""The cost of errors of a weight whose inputs are known: `Weighting`.

The cost of V in place of W is E |D^(1/2) (W - V) x|^2 = |D^(1/2) (W - V) C^(1/2)|^2 (Frobenius),
with C = E x x^T the second moment of the inputs x, and D diagonal: the weight of each output. Each
format minimises it in `Train.decompose`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from ttcompress.planning.spectrum import Cut, Spectrum
from ttcompress.trains.tt_svd import Factorization, factorize, spectrum_at

_DAMPING = 1e-3
"""Added to C and D, as a fraction of their mean, so that no direction costs nothing."""


@dataclass(frozen=True, eq=False)
class Weighting:
    """D and C of one weight, in float64 and damped.

    `rows` is D, (rows,): the weight of an error in each output. `moment` is C, (columns,
    columns): the second moment of the inputs. `known` is how much of them was measured, from 0 (all
    is guessed) to 1.
    """

    rows: Tensor
    moment: Tensor
    known: float = 1.0

    @classmethod
    def damped(cls, rows: Tensor, moment: Tensor, known: float = 1.0) -> Weighting:
        """Make a weighting from D and C, damped so that no direction costs nothing."""
        return cls(rows.double() + _DAMPING * rows.double().mean(), damp_moment(moment), known)

    @cached_property
    def roots(self) -> tuple[Tensor, Tensor]:
        """C^(1/2) and C^(-1/2)."""
        squares, vectors = torch.linalg.eigh(self.moment)
        root = squares.clamp(min=torch.finfo(torch.float64).tiny).sqrt()
        return (vectors * root) @ vectors.mT, (vectors / root) @ vectors.mT

    @property
    def mean(self) -> float:
        """The cost of a unit of squared error, as the mean over all values."""
        return float(self.rows.mean() * self.moment.diagonal().mean())

    @cached_property
    def rounding(self) -> float:
        """The mean cost of a unit error in one column if later columns compensate for it.

        That is the mean squared diagonal of C's Cholesky factor; without feedback it would be the
        mean diagonal of C (Frantar et al. 2023, OPTQ).
        """
        return float(torch.linalg.cholesky(self.moment).diagonal().square().mean())

    def whiten(self, matrix: Tensor) -> Tensor:  # (rows, columns) -> D^(1/2) W C^(1/2), float64
        """The matrix whose plain squared errors are the costs of this one's."""
        return self.rows.sqrt()[:, None] * matrix.double() @ self.roots[0]

    def apply(self, error: Tensor) -> Tensor:  # (rows, columns) -> D error C
        """Half the gradient of the cost."""
        return self.rows[:, None] * (error @ self.moment)

    def cost(self, error: Tensor) -> float:
        """The cost of an error: the weighted squared norm."""
        return float((error * self.apply(error)).sum())


def damp_moment(moment: Tensor, damping: float = _DAMPING) -> Tensor:
    """A second moment with a fraction of its mean diagonal added to the diagonal; float64."""
    wide = moment.double()
    mean = wide.diagonal().mean()
    added = damping * (float(mean) or 1.0)
    return wide + added * torch.eye(len(wide), dtype=torch.float64)


def weighted_factorize(matrix: Tensor, cut: Cut, weighting: Weighting) -> Factorization:
    """The SVD of one unfolding in units of the cost.

    Exact for cuts that leave the columns whole. If columns are split, only the diagonal of C is
    used, and no singular vectors are returned.
    """
    tall = weighting.rows.sqrt()[:, None] * matrix.double()
    if cut[1] > 1:
        spectrum = spectrum_at(tall * weighting.moment.diagonal().sqrt(), cut)
        return Factorization(replace(spectrum, known=weighting.known), ())
    found = factorize(weighting.whiten(matrix), cut)
    rounding = float(tall.square().sum()) * weighting.rounding
    return Factorization(Spectrum(found.spectrum.values, rounding, weighting.known), found.vectors)
