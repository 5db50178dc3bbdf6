"""`sweep` as a command: what it writes, what it refuses, and its exit codes."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn


def test_a_factor_out_of_reach_is_shown_with_the_reason(case, run) -> None:
    given = ("sweep", case.path, "--formats", "mps", "-j", "2", "--folder", "f")
    found = run(*given, "--factors", "3,4000")
    assert found.code == 0, found.err
    assert re.search(r"model under mps@4000: .*4000 is out of reach", found.out)
    assert "accuracy not measured: add --task" in found.out
    alone = run(*given, "--factors", "4000,5000")
    assert alone.code == 2
    assert "4000 is out of reach" in alone.err


def test_the_command_writes_table_picture_artifact_and_recipe(tiny_checkpoint, run, folder) -> None:
    options = ("--factors", "2", "--formats", "mps,auto", "-j", "2")
    wanted = ("--pick", "mps@2", "--picture", "front.svg")
    found = run("sweep", tiny_checkpoint, *options, *wanted)
    assert found.code == 0, found.err
    made = {"front.svg", "tiny.sweep", "tiny.mps.safetensors", "tiny.mps.yaml"}
    assert {path.name for path in folder.iterdir()} == made
    assert "wrote tiny.mps.safetensors and tiny.mps.yaml" in found.err
    assert run("sweep", tiny_checkpoint, *options, *wanted).code == 2  # they exist
    again = run("sweep", tiny_checkpoint, *options, "--json")
    assert [point["outcome"]["cached"] for point in again.json["points"]] == [True, True]
    assert set(again.json["front"]) <= {"mps@2", "auto@2"}
    assert again.json["metric"] is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--format", "mps"], "No such option: --format .*--formats"),
        (["--factor", "4"], "No such option: --factor .*--factors"),
        (["--pick", "mps@7"], r"has no point 'mps@7'. Its points are mps@2, mps@4"),
        (["-o", "x.safetensors"], "--output only applies to a picked point; add --pick"),
        (["--picture", "x.jpg"], "expected a name ending in .svg or .png, got x.jpg"),
        (
            ["--formats", "mps,tt"],
            "expected one of mps, mpo, svd, quantised, codec, auto, got 'tt'",
        ),
        (["--factors", "1"], "--factors: expected numbers above 1"),
        (["--folder", "taken"], "taken: is a file, but the points need a folder"),
    ],
)
def test_what_does_not_fit_is_refused(options, said, tiny_checkpoint, run, folder) -> None:
    (folder / "taken").write_text("")
    found = run("sweep", tiny_checkpoint, "-j", "2", *options)
    assert found.code == 2, found.out
    assert re.search(said, " ".join(found.err.split()))
    assert not list(folder.rglob("*.safetensors"))


def test_training_needs_something_to_train_on(run, folder) -> None:
    torch.save(nn.LSTM(6, 8).state_dict(), folder / "bare.pt")
    found = run("sweep", "bare.pt", "-j", "2", "--finetune")
    assert found.code == 2, found.out
    assert "finetune: there is nothing to train on" in " ".join(found.err.split())
    assert not list(folder.rglob("*.safetensors"))
