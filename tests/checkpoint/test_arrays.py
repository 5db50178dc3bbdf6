"""numpy values in pickles: read without numpy's own reconstruction."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from ttcompress.checkpoint import open_checkpoint
from ttcompress.checkpoint.checkpoint import Checkpoint
from ttcompress.errors import CheckpointError

MATRIX = np.arange(12, dtype=np.float32).reshape(3, 4)


def opened(value: object, path: Path, protocol: int = 2) -> Checkpoint:
    path.write_bytes(pickle.dumps(value, protocol))
    return open_checkpoint(path)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    "array",
    [
        MATRIX,
        np.asfortranarray(MATRIX),
        MATRIX.astype(">f4"),
        MATRIX.T,
        MATRIX.astype(np.float64),
        MATRIX.astype(np.float16),
    ],
    ids=["row-major", "column-major", "big-endian", "transposed", "float64", "float16"],
)
def test_an_array_is_a_weight(array: np.ndarray, protocol: int, tmp_path: Path) -> None:
    checkpoint = opened({"w": array}, tmp_path / "m", protocol)
    tensor = checkpoint.tensor("w").numpy()
    assert tensor.dtype == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(tensor, array)


@pytest.mark.parametrize("spelling", [b"numpy.core", b"numpy._core"])
def test_both_spellings_of_numpy_are_known(spelling: bytes, tmp_path: Path) -> None:
    data = pickle.dumps({"w": MATRIX, "best": np.float64(0.25)}, 2)
    assert b"numpy.core" in data or b"numpy._core" in data
    data = data.replace(b"numpy._core", b"numpy.core").replace(b"numpy.core", spelling)
    (tmp_path / "m").write_bytes(data)
    checkpoint = open_checkpoint(tmp_path / "m")
    np.testing.assert_array_equal(checkpoint.tensor("w").numpy(), MATRIX)
    assert ["best", 0.25] in checkpoint.carried["dict"]


@pytest.mark.parametrize("scalar", [np.float32(1.5), np.int64(-3), np.bool_(True), np.uint8(7)])
def test_a_scalar_is_carried_as_a_number(scalar: np.generic, tmp_path: Path) -> None:
    checkpoint = opened({"w": MATRIX, "x": scalar}, tmp_path / "m")
    assert ["x", scalar.item()] in checkpoint.carried["dict"]


def test_an_array_of_text_is_left_out_and_named(tmp_path: Path) -> None:
    checkpoint = opened({"w": MATRIX, "words": np.array(["a", "b"])}, tmp_path / "m")
    assert [key for key, _ in checkpoint.carried["dict"]] == ["w"]
    assert [(one.key, one.bytes) for one in checkpoint.left_out] == [("words", 0)]


def test_arrays_in_a_torch_file_are_found(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2, 2), "mean": np.arange(3.0)}, tmp_path / "m")
    checkpoint = open_checkpoint(tmp_path / "m")
    np.testing.assert_array_equal(checkpoint.tensor("mean").numpy(), np.arange(3.0))


def test_an_array_with_too_few_bytes_is_refused(tmp_path: Path) -> None:
    data = pickle.dumps({"w": np.arange(6, dtype=np.uint8).reshape(2, 3)}, 4)
    broken = data.replace(b"K\x02K\x03\x86", b"K\x02K\x09\x86")
    assert broken != data
    (tmp_path / "m").write_bytes(broken)
    with pytest.raises(CheckpointError, match="6 bytes"):
        open_checkpoint(tmp_path / "m")
