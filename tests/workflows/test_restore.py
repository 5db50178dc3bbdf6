"""`restore` gives the original code what it would have loaded: nesting, keys, shapes, types."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from ttcompress.errors import ArtifactError, OutputPathError
from ttcompress.workflows.compress import compress
from ttcompress.workflows.restore import restore

FULL = {"version": 1, "budget": {"tolerance": 0.0}, "store": "float32"}


def test_a_nested_checkpoint_comes_back_whole(tiny_state_dict, tmp_path) -> None:
    wrapped = OrderedDict((f"module.{name}", value) for name, value in tiny_state_dict.items())
    content = {"epoch": 7, "state_dict": wrapped, "vocabulary": {0: "a", 1: "b"}}
    torch.save(content, tmp_path / "source.pt")
    compress(tmp_path / "source.pt", FULL).save(tmp_path / "artifact")
    restore(tmp_path / "artifact", tmp_path / "dense.pt")
    dense = torch.load(tmp_path / "dense.pt")
    assert (dense["epoch"], dense["vocabulary"]) == (7, {0: "a", 1: "b"})
    assert list(dense["state_dict"]) == list(wrapped)
    for name, value in wrapped.items():
        torch.testing.assert_close(dense["state_dict"][name], value, rtol=0, atol=1e-6)


def test_the_output_is_checked_before_the_work(tiny_artifact, tmp_path) -> None:
    (tmp_path / "dense.pt").write_text("mine")
    with pytest.raises(OutputPathError, match="already exists"):
        restore(tmp_path / "absent", tmp_path / "dense.pt")
    with pytest.raises(OutputPathError, match="does not exist"):
        restore(tiny_artifact, tmp_path / "no" / "dense.pt")
    assert (tmp_path / "dense.pt").read_text() == "mine"


def test_a_damaged_artifact_leaves_no_output(tiny_artifact, tmp_path) -> None:
    (tmp_path / "half").write_bytes(tiny_artifact.read_bytes()[:-100])
    with pytest.raises(ArtifactError):
        restore(tmp_path / "half", tmp_path / "dense.pt")
    assert not (tmp_path / "dense.pt").exists()


def test_a_computed_weight_comes_back_plain_and_is_named(tmp_path) -> None:
    cell = nn.LSTMCell(3, 4)
    parametrizations.weight_norm(cell, "weight_hh")
    torch.save({"cell": cell.state_dict(), "epoch": 2}, tmp_path / "source.pt")
    compress(tmp_path / "source.pt", FULL).save(tmp_path / "artifact")
    (note,) = restore(tmp_path / "artifact", tmp_path / "dense.pt")
    assert "under weight norm" in note and note.endswith("restored as that plain weight: weight_hh")
    dense = torch.load(tmp_path / "dense.pt")
    plain = nn.LSTMCell(3, 4)
    plain.load_state_dict(dense["cell"], strict=True)
    torch.testing.assert_close(plain.weight_hh, cell.weight_hh, rtol=0, atol=1e-5)
    assert dense["epoch"] == 2


def test_nothing_is_said_about_plain_weights(tiny_artifact, tmp_path) -> None:
    assert restore(tiny_artifact, tmp_path / "dense.pt") == ()
