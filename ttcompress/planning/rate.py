"""What values cost and lose in the store `coded`, before they are rounded: a Gaussian's numbers.

A Gaussian of standard deviation s, rounded to multiples of a step d and entropy-coded, takes

    R(v) bits  and has the squared error  d^2 D(v),       v = s^2 / d^2

and no other memoryless source of that variance takes more (Cover and Thomas, "Elements of
information theory", 2006, theorem 8.6.5, for fine steps). For large v, R is log2(v) / 2 + 2.05, and
D is 1 / 12: one bit more divides the error by four. At a price of p a bit, the step is worth
refining until d^2 = p / KAPPA.
"""

from __future__ import annotations

from functools import cache
from math import erf, exp, log, pi, sqrt
from typing import TYPE_CHECKING

from ttcompress.system.late import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

KAPPA = log(4) / 12
"""The error that one more bit saves, in units of the squared step: -dD/dR of fine steps."""

_FINE = 16.0
"""From this v on the formulas for fine steps hold, to 1e-4 bits."""

_COARSE = 1e-3
"""Below this v everything is rounded to 0: no bits, and an error of v."""


def bits(v: Floats) -> Floats:
    """R(v): bits of a value, by its variance in units of the squared step."""
    fine = 0.5 * np.log2(2 * pi * np.e * np.maximum(v, _FINE))
    known, rates, _ = _table()
    return np.where(v >= _FINE, fine, np.interp(np.log(np.maximum(v, _COARSE)), known, rates))


def distortion(v: Floats) -> Floats:
    """D(v): the squared error of a value, in units of the squared step."""
    known, _, errors = _table()
    held = np.interp(np.log(np.maximum(v, _COARSE)), known, errors)
    return np.where(v >= _FINE, 1 / 12, np.where(v <= _COARSE, v, held))


@cache
def _table() -> tuple[Floats, Floats, Floats]:
    """ln v, R(v) and D(v), by sums over the cells of a normal distribution."""
    places = np.linspace(log(_COARSE), log(_FINE), 96)
    found = [_cells(exp(place / 2)) for place in places]
    return places, np.array([rate for rate, _ in found]), np.array([error for _, error in found])


def _cells(deviation: float) -> tuple[float, float]:
    """Entropy and squared error of a normal variable rounded to integers."""
    rate = error = 0.0
    for k in range(int(8 * deviation) + 2):
        low, high = (k - 0.5) / deviation, (k + 0.5) / deviation
        share = _below(high) - _below(low)
        if share <= 0:
            continue
        # Moments of the cell: the density's derivative is -x times it.
        slope = _density(low) - _density(high)
        square = share + low * _density(low) - high * _density(high)
        lost = deviation**2 * square - 2 * k * deviation * slope + k**2 * share
        sides = 1 if k == 0 else 2
        rate -= sides * share * log(share) / log(2)
        error += sides * lost
    return rate, error


def _below(x: float) -> float:
    return 0.5 * (1 + erf(x / sqrt(2)))


def _density(x: float) -> float:
    return exp(-x * x / 2) / sqrt(2 * pi)
