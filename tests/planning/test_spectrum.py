"""Spectra as plain numbers, against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttcompress.planning.spectrum import Spectrum

spectra = st.lists(st.floats(0, 1e3), min_size=1, max_size=20).map(
    lambda values: Spectrum(tuple(sorted(values, reverse=True)))
)


@given(spectra)
def test_tails_are_sums_of_the_smaller_squares(spectrum: Spectrum) -> None:
    squares = np.square(spectrum.values)
    for rank in range(len(squares) + 3):
        assert spectrum.tail(rank) == pytest.approx(float(squares[rank:].sum()), rel=1e-12)
    assert spectrum.energy == spectrum.tail(0)


@given(spectra, st.floats(0, 2e6))
def test_rank_for_tail_is_the_smallest_that_does(spectrum: Spectrum, square: float) -> None:
    rank = spectrum.rank_for_tail(square)
    assert spectrum.tail(rank) <= square
    assert rank == 1 or spectrum.tail(rank - 1) > square


@given(spectra, st.floats(0, 2e6))
def test_rank_above_counts(spectrum: Spectrum, square: float) -> None:
    assert spectrum.rank_above(square) == sum(value * value > square for value in spectrum.values)


@pytest.mark.parametrize(("fraction", "rank"), [(0.0, 1), (0.79, 1), (0.81, 2), (1.0, 2)])
def test_rank_for_energy(fraction: float, rank: int) -> None:
    assert Spectrum((2.0, 1.0, 0.0)).rank_for_energy(fraction) == rank
