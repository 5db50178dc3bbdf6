"""`restore` gives the original code what it would have loaded: nesting, keys, shapes, types."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from ttcompress.artifact import load
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


def test_several_models_come_back_whole(tiny_state_dict, tmp_path) -> None:
    content = {
        "en": tiny_state_dict,
        "de": {**tiny_state_dict, "extra": torch.ones(3)},
        "loss": 1.5,
    }
    torch.save(content, tmp_path / "source.pt")
    compress(tmp_path / "source.pt", FULL, key="all").save(tmp_path / "artifact")
    assert restore(tmp_path / "artifact", tmp_path / "dense.pt").left_out == ()
    dense = torch.load(tmp_path / "dense.pt")
    assert (list(dense), dense["loss"]) == (list(content), 1.5)
    for key in ("en", "de"):
        assert list(dense[key]) == list(content[key])
        for name, value in content[key].items():
            torch.testing.assert_close(dense[key][name], value, rtol=0, atol=1e-6)


def test_what_is_not_in_the_file_is_returned_and_in_no_factor(tiny_state_dict, tmp_path) -> None:
    average = {name: value + 1 for name, value in tiny_state_dict.items()}
    moments = {0: {"exp_avg": torch.zeros(100, 100)}}
    optimizer = {"state": moments, "param_groups": []}
    torch.save({"net": tiny_state_dict}, tmp_path / "alone.pt")
    content = {"net": tiny_state_dict, "ema": average, "optimizer": optimizer}
    torch.save(content, tmp_path / "source.pt")
    reports = {}
    for name in ("alone", "source"):
        compress(tmp_path / f"{name}.pt", FULL, key="net").save(tmp_path / name)
        reports[name] = load(tmp_path / name).report
    assert reports["source"].totals == reports["alone"].totals
    size = sum(value.nbytes for value in average.values())
    left_out = restore(tmp_path / "source", tmp_path / "dense.pt").left_out
    assert left_out == reports["source"].left_out
    assert [(one.key, one.bytes) for one in left_out] == [("ema", size), ("optimizer", 40_000)]
    assert list(torch.load(tmp_path / "dense.pt")) == ["net"]
    whole = {name: (tmp_path / f"{name}.pt").stat().st_size for name in reports}
    assert reports["alone"].comparable_bytes == whole["alone"]
    assert reports["source"].comparable_bytes == whole["source"] - size - 40_000


def test_a_computed_weight_comes_back_plain_and_is_named(tmp_path) -> None:
    cell = nn.LSTMCell(3, 4)
    parametrizations.weight_norm(cell, "weight_hh")
    torch.save({"cell": cell.state_dict(), "epoch": 2}, tmp_path / "source.pt")
    compress(tmp_path / "source.pt", FULL).save(tmp_path / "artifact")
    (note,) = restore(tmp_path / "artifact", tmp_path / "dense.pt").notes
    assert "under weight norm" in note and note.endswith("restored as that plain weight: weight_hh")
    dense = torch.load(tmp_path / "dense.pt")
    plain = nn.LSTMCell(3, 4)
    plain.load_state_dict(dense["cell"], strict=True)
    torch.testing.assert_close(plain.weight_hh, cell.weight_hh, rtol=0, atol=1e-5)
    assert dense["epoch"] == 2


def test_nothing_is_said_about_plain_weights(tiny_artifact, tmp_path) -> None:
    assert restore(tiny_artifact, tmp_path / "dense.pt").notes == ()
