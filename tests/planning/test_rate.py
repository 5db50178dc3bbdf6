"""Bits and errors of rounded normal values, against values that are drawn and counted."""

from __future__ import annotations

import numpy as np
import pytest

from ttcompress.planning.rate import KAPPA, bits, distortion

VARIANCES = (0.02, 0.1, 0.3, 1.0, 3.0, 10.0, 15.9, 16.1, 60.0, 4000.0)


@pytest.mark.parametrize("variance", VARIANCES)
def test_bits_and_errors_are_those_of_drawn_values(variance: float) -> None:
    drawn = variance**0.5 * np.random.default_rng(0).standard_normal(1_000_000)
    codes = drawn.round()
    _, counts = np.unique(codes, return_counts=True)
    shares = counts / len(drawn)
    entropy = -float((shares * np.log2(shares)).sum())
    assert float(bits(np.array(variance))) == pytest.approx(entropy, rel=0.01, abs=0.002)
    error = float(np.square(drawn - codes).mean())
    assert float(distortion(np.array(variance))) == pytest.approx(error, rel=0.01)


def test_more_variance_takes_more_bits_and_never_jumps() -> None:
    v = np.logspace(-5, 5, 2000)
    rates, errors = bits(v), distortion(v)
    assert (np.diff(rates) >= 0).all() and np.diff(rates).max() < 0.02
    assert np.abs(np.diff(errors)).max() < 0.002
    assert rates[0] < 1e-3 and errors[0] == v[0]


def test_half_a_step_takes_one_bit_more() -> None:
    assert float(bits(np.array(400.0)) - bits(np.array(100.0))) == pytest.approx(1)


def test_kappa_is_what_a_bit_saves() -> None:
    """The squared error d^2 D(s^2 / d^2) falls by KAPPA d^2 for a bit more, at fine steps."""
    step = np.array([1.0, 0.99])
    v = 1000 / step**2
    saved, spent = np.diff(step**2 * distortion(v)), np.diff(bits(v))
    assert float(-saved[0] / spent[0]) == pytest.approx(KAPPA, rel=0.02)
