"""Inspection against spectra that are known because they were put there."""

from __future__ import annotations

import pytest
import torch

import ttcompress
from ttcompress.model.weights import RecurrentStack, Weight
from ttcompress.planning.spectrum import Spectrum
from ttcompress.reporting.inspection import inspection_remarks, layers_table, spectra_table
from ttcompress.results.inspection import inspect_weight

WEIGHT = Weight("w", ("w",), "linear", (16, 8), "float32")


def test_ranks_hold_their_share_of_the_energy() -> None:
    """Squares of 100 in all: 91 % are held by two, 96 % by three, 99.5 % by four."""
    spectrum = Spectrum(tuple(square**0.5 for square in (82.0, 9.0, 5.0, 3.5, 0.5)))
    assert inspect_weight(WEIGHT, spectrum).ranks == {"90%": 2, "95%": 3, "99%": 4}


def test_the_fall_is_told_at_every_eighth() -> None:
    found = inspect_weight(WEIGHT, Spectrum(tuple(2.0**-k for k in range(8))))
    assert found.fall == (1, 1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 128)
    assert spectra_table([found]).rows[0][-2:] == ("0.25 0.06 0.02", "█▄▂▁▁▁▁▁▁")


def test_a_zero_weight_has_no_fall() -> None:
    found = inspect_weight(WEIGHT, Spectrum((0.0,) * 8))
    assert (found.fall, spectra_table([found]).rows[0][-2:]) == ((), ("zero", "zero"))


def test_a_built_spectrum_is_found_in_the_file(tmp_path) -> None:
    torch.manual_seed(0)
    values = torch.tensor([8.0, 4.0, 2.0, 1.0])
    u, v = (torch.linalg.qr(torch.randn(n, 4)).Q for n in (12, 6))
    path = tmp_path / "model.pt"
    state_dict = {"head.weight": u @ torch.diag(values) @ v.T, "head.bias": torch.ones(12)}
    torch.save(state_dict, path)
    found = ttcompress.inspect(path)
    [weight] = found.weights
    assert (weight.full_rank, weight.ranks["95%"], weight.shape) == (6, 3, (12, 6))
    assert weight.fall[:5:2] == pytest.approx((1, 0.5, 0.125), abs=1e-6)
    assert (found.params, found.tensor_bytes) == (84, 336)
    assert found.file_bytes == path.stat().st_size
    assert "not weights: 1 other tensor, 48 bytes" in inspection_remarks(found)


def test_layers_are_told_with_what_is_special_about_them() -> None:
    stack = RecurrentStack("a.lstm.", "lstm", 6, 8, 2, True, 4, bias=False, raw=True)
    cell = RecurrentStack("", "gru", 6, 8, cell=True)
    assert layers_table([stack, cell]).rows == (
        ("a.lstm", "lstm", "6", "8", "2", "bidirectional, projection 4, no bias, weight-drop"),
        (".", "gru", "6", "8", "1", "cell"),
    )
