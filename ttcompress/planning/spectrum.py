"""Singular values as plain numbers, and the ranks and errors that follow from them.

A *cut* (row prefix, column prefix) names an unfolding of a matrix: split the rows at R1 and the
columns at C1, bring (R1, C1) to the left and the rest to the right. Cuts of MPS and MPO are of this
one kind, and layouts that share a cut share its spectrum.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING

from ttcompress.system.late import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Cut = tuple[int, int]


@dataclass(frozen=True)
class Spectrum:
    """The singular values of one unfolding, largest first.

    `rounding` is the squared norm that rounding the matrix itself applies to; None: the energy. It
    differs from the energy if the values are weighted by inputs. `known` is how much of those
    weights was measured, from 0 (nothing) to 1.
    """

    values: tuple[float, ...]
    rounding: float | None = None
    known: float = 0.0

    @cached_property
    def squares(self) -> NDArray[np.float64]:
        """The squares of the values, largest first."""
        found: NDArray[np.float64] = np.square(np.array(self.values))
        return found

    @cached_property
    def _ascending_squares(self) -> list[float]:
        return [value * value for value in reversed(self.values)]

    @cached_property
    def _tails(self) -> list[float]:
        """tails[r] is the sum of squares from index r on, added from the smallest for accuracy."""
        return list(accumulate(self._ascending_squares, initial=0.0))[::-1]

    @property
    def energy(self) -> float:
        """Squared Frobenius norm."""
        return self._tails[0]

    def tail(self, rank: int) -> float:
        """Squared error of the best approximation of that rank (Eckart and Young, 1936).

        >>> Spectrum((2.0, 1.0)).tail(1)
        1.0
        """
        return self._tails[min(rank, len(self.values))]

    def rank_above(self, square: float) -> int:
        """How many values have a square above `square`."""
        return len(self.values) - bisect_right(self._ascending_squares, square)

    def rank_for_tail(self, square: float) -> int:
        """The smallest rank, at least 1, whose tail is at most the given squared error.

        >>> Spectrum((2.0, 1.0, 0.5)).rank_for_tail(0.25)
        2
        """
        ascending = self._tails[::-1]
        return max(1, len(self.values) + 1 - bisect_right(ascending, square))

    def rank_for_energy(self, fraction: float) -> int:
        """The smallest rank that holds the given fraction of the energy."""
        return self.rank_for_tail((1.0 - fraction) * self.energy)


Spectra = Mapping[Cut, Spectrum]
