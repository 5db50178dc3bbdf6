"""`verify` against files that were changed one value at a time: each change is seen and named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ttcompress.errors import CheckpointError, InputError
from ttcompress.reporting.verification import verification_remarks
from ttcompress.results.verification import CheckedWeight
from ttcompress.workflows.compress import compress
from ttcompress.workflows.verify import verify

Tensors = dict[str, Tensor]
Change = Callable[[Tensors, dict[str, Any]], None]


def changed(artifact: Path, folder: Path, change: Change) -> Path:
    """A copy of an artifact with its tensors and its metadata changed in place."""
    with safe_open(artifact, "pt") as file:
        metadata = file.metadata()
    tensors, document = load_file(artifact), json.loads(metadata["ttcompress"])
    change(tensors, document)
    path = folder / "changed.safetensors"
    save_file(tensors, path, metadata | {"ttcompress": json.dumps(document)})
    return path


@pytest.mark.parametrize("store", ["float32", "float16", "int3", "int8"])
@pytest.mark.parametrize("train_format", ["mps", "mpo"])
def test_every_reported_error_is_computed_again(
    train_format: str, store: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    modes = {"row_modes": [4, 8], "column_modes": [2, 4]}
    recipe = {
        "version": 1,
        "format": train_format,
        "store": store,
        "budget": {"rank": 4},
        "rules": [
            {"weights": "lstm.weight_hh_*", **modes},
            {"weights": "recurrent"},
            {"weights": "embedding", "format": "dense", "store": "int2"},
        ],
        "default": "keep",
    }
    path = tmp_path / "out.safetensors"
    compress(tiny_checkpoint, recipe).save(path)
    found = verify(path, tiny_checkpoint)
    assert found.agrees
    assert found.kept == 6
    assert len(found.weights) == 5
    for weight in found.weights:
        assert weight.recomputed == pytest.approx(weight.reported, rel=1e-9)
        assert len(weight.gates_recomputed) == (4 if "lstm" in weight.name else 0)
    assert verification_remarks(found)[-1] == "verified"


def flip_a_plane(tensors: Tensors, _: dict[str, Any]) -> None:
    tensors["lstm.weight_hh_l0.cores.0.planes"][0, 0] ^= 128


def change_a_bias(tensors: Tensors, _: dict[str, Any]) -> None:
    tensors["head.bias"][3] = torch.nextafter(tensors["head.bias"][3], torch.tensor(9.0))


def store_in_double(tensors: Tensors, _: dict[str, Any]) -> None:
    tensors["head.bias"] = tensors["head.bias"].double()


def drop_a_bias(tensors: Tensors, document: dict[str, Any]) -> None:
    del tensors["head.bias"], document["source_paths"]["head.bias"]


def add_a_tensor(tensors: Tensors, _: dict[str, Any]) -> None:
    tensors["extra"] = torch.ones(2)


def report_less(_: Tensors, document: dict[str, Any]) -> None:
    document["report"]["weights"][0]["relative_error"] *= 0.999


def report_other_gates(_: Tensors, document: dict[str, Any]) -> None:
    document["report"]["weights"][0]["gate_errors"][2] *= 1.001


def forget_a_weight(_: Tensors, document: dict[str, Any]) -> None:
    del document["report"]["weights"][0]


def invent_a_weight(_: Tensors, document: dict[str, Any]) -> None:
    entry = dict(document["report"]["weights"][0], name="lstm.weight_hh_l7")
    document["report"]["weights"].append(entry)


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (flip_a_plane, "lstm.weight_hh_l0: the report says error 0.00"),
        (change_a_bias, "head.bias: should be unchanged, but differs"),
        (store_in_double, "head.bias: should be unchanged, but differs"),
        (drop_a_bias, "head.bias: is missing from the file"),
        (add_a_tensor, "extra: is not in the model"),
        (report_less, "lstm.weight_ih_l0: the report says error 0.00"),
        (report_other_gates, "lstm.weight_ih_l0: the report says gate errors 0.00"),
        (forget_a_weight, "lstm.weight_ih_l0: in the file but not in the report"),
        (invent_a_weight, "lstm.weight_hh_l7: in the report but not in the file"),
    ],
)
def test_every_change_is_seen(
    change: Change, difference: str, tiny_artifact: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    found = verify(changed(tiny_artifact, tmp_path, change), tiny_checkpoint)
    assert not found.agrees
    assert len(found.differences) == 1
    assert found.differences[0].startswith(difference)
    assert verification_remarks(found)[-1] == "NOT VERIFIED: 1 difference"


def test_kept_tensors_are_compared_by_their_bits(tiny_state_dict, tmp_path: Path) -> None:
    """NaN is equal to itself, and 0 is not -0."""
    bias = torch.tensor([float("nan"), 0.0] + [1.0] * 9)
    torch.save(dict(tiny_state_dict, **{"head.bias": bias}), tmp_path / "model.pt")
    artifact = tmp_path / "out.safetensors"
    compress(tmp_path / "model.pt", {"version": 1, "budget": {"factor": 2}}).save(artifact)
    assert verify(artifact, tmp_path / "model.pt").agrees

    def turn_zero_into_minus_zero(tensors: Tensors, _: dict[str, Any]) -> None:
        tensors["head.bias"][1] = -0.0

    found = verify(changed(artifact, tmp_path, turn_zero_into_minus_zero), tmp_path / "model.pt")
    [difference] = found.differences
    assert difference.startswith("head.bias: should be unchanged, but differs")


def test_another_model_is_refused(tiny_artifact, tiny_state_dict, tmp_path) -> None:
    torch.save(dict(tiny_state_dict), tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"other\.pt: is not the model that .* was made from"):
        verify(tiny_artifact, tmp_path / "other.pt")


def test_a_missing_file_is_named(tiny_artifact, tmp_path) -> None:
    with pytest.raises(InputError, match="absent"):
        verify(tiny_artifact, tmp_path / "absent.pt")
    with pytest.raises(InputError, match="absent"):
        verify(tmp_path / "absent.safetensors", tiny_artifact)


def test_agreement_is_to_rounding_error_and_no_further() -> None:
    def agrees(recomputed: float) -> bool:
        return CheckedWeight("w", 0.1, recomputed, (), ()).agrees

    assert agrees(0.1 + 1e-9)
    assert not agrees(0.1 + 1e-6)
    assert not CheckedWeight("w", 0.1, 0.1, (0.1,), ()).agrees
