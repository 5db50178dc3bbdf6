"""Reading a tensor, or a part of one, from a safetensors file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ttcompress.errors import CheckpointError
from ttcompress.system.safetensors import open_safetensors


def test_a_part_of_a_tensor_is_read_alone(tmp_path: Path) -> None:
    values = torch.arange(2 * 3 * 5 * 4, dtype=torch.float16).view(2, 3, 5, 4)
    save_file({"a": torch.ones(3), "b": values}, tmp_path / "x.safetensors")
    entry = open_safetensors(tmp_path / "x.safetensors").tensors["b"]
    for index in ((), (1,), (1, 2), (0, 1)):
        assert torch.equal(entry.part(index, slice(1, 2)), values[index][1:2])
    assert torch.equal(entry.part((1, 2), slice(0, 5)), values[1, 2])
    assert torch.equal(entry.part((0, 1, 3), slice(2, 4)), values[0, 1, 3, 2:4])


def test_a_tensor_of_nothing_keeps_its_shape(tmp_path: Path) -> None:
    save_file({"a": torch.ones(3, 0, 2, dtype=torch.int16)}, tmp_path / "x.safetensors")
    found = open_safetensors(tmp_path / "x.safetensors").tensors["a"].read()
    assert found.shape == (3, 0, 2) and found.dtype == torch.int16


def test_a_header_that_is_a_list_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes((2).to_bytes(8, "little") + b"[]")
    with pytest.raises(CheckpointError, match="header is not a table of tensors"):
        open_safetensors(tmp_path / "x.safetensors")
