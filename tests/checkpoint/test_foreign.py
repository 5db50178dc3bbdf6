"""Bad input: one message with place, fact and cure, and the right class."""

import io
import json
import os
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save, save_file

from ttcompress.checkpoint import open_checkpoint
from ttcompress.errors import CheckpointError, InputError, TTCompressError


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return buffer.getvalue()


def bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/data.pkl", bytes(10**6))
    return buffer.getvalue()


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, w=np.ones((2, 2)))
    return buffer.getvalue()


def header(content: Any, data: bytes = b"") -> bytes:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return struct.pack("<Q", len(text)) + text + data


def claim(**changes: Any) -> bytes:
    entry = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16], **changes}
    return header({"w": entry}, bytes(16))


BAD = {
    "empty": (b"", "is empty"),
    "one byte": (b"\x08", "is not a known kind of file"),
    "text": (b"hello, this is a note\n" * 400, "is a text file"),
    "text, cut in a letter": ("é".encode() * 3000, "is a text file"),
    "other JSON": (b'{"a": 1}', "not the index of a sharded model"),
    "no JSON": (b"{ not json", "but not JSON"),
    "random": (bytes(range(200, 256)), "is not a known kind of file"),
    "web page": (b"\n<!DOCTYPE html><html></html>", "web page"),
    "git-LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "Keras"),
    "Keras 3": (zipped("config.json", "model.weights.h5"), "Keras"),
    "ONNX": (b"\x08\x08\x12\x07pytorch\x1a\x052.0.0", "ONNX"),
    "SavedModel": (b"\x08\x01\x12\x90\x01", "TensorFlow"),
    "SavedModel, zipped": (zipped("m/saved_model.pb"), "TensorFlow"),
    "TFLite": (b"\x1c\x00\x00\x00TFL3" + bytes(20), "TensorFlow"),
    "TensorFlow index": (b"\x00\x01" * 20 + bytes.fromhex("57fb808b247547db"), "TensorFlow"),
    "npz": (npz(), "numpy.load"),
    "npy": (b"\x93NUMPY\x01\x00", "numpy"),
    "gzip": (b"\x1f\x8b\x08\x00" + bytes(20), "gzip"),
    "zip around no model": (zipped("readme", "m/model.pt"), "no weights can be read"),
    "TorchScript of 2018": (zipped("m/model.json", "m/tensors/0"), "before 1.3"),
    "torch.export": (zipped("m/archive_format", "m/archive_version"), "torch.export"),
    "torch.export, before 2.9": (zipped("serialized_exported_program.json"), "torch.export"),
    "other zip": (zipped("a.txt"), "without a data.pkl"),
    "empty zip": (b"PK\x05\x06" + bytes(18), "without a data.pkl"),
    "zip bomb": (bomb(), "zip bomb"),
    "zip, cut": (zipped("m/data.pkl")[:40], "truncated zip"),
    "artifact": (save({"w": torch.ones(2, 2)}, {"ttcompress": "{}"}), "ttcompress restore"),
    "header too long": (struct.pack("<Q", 10**6) + b"{", "is truncated"),
    "header no JSON": (header(b"{nonsense}"), "header is damaged"),
    "header not a table": (struct.pack("<Q", 4) + b"{}[]", "header is damaged"),
    "data cut": (claim(data_offsets=[16, 32]), "does not fit"),
    "size wrong": (claim(shape=[2, 3]), "does not fit"),
    "negative": (claim(shape=[-2, -2]), "not a tensor"),
    "unknown type": (claim(dtype="F4"), "F4"),
    "no offsets": (header({"w": {"dtype": "F32"}}), "not a tensor"),
    "no tensor": (header({"w": 3}), "not a tensor"),
    "no tensors": (header({}), "no named 2-D tensor"),
    "100 dimensions": (claim(shape=[1] * 100, data_offsets=[0, 4]), "not a tensor"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_gets_its_message(kind: str, tmp_path: Path) -> None:
    data, fact = BAD[kind]
    path = tmp_path / "model.pt"
    path.write_bytes(data)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and fact in message
    assert message.count(". ") >= 1 and message.endswith((".", ")."))
    assert caught.value.exit_code == 3


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        open_checkpoint(tmp_path / "nowhere.pt")


def test_a_folder_names_a_file_in_it(tmp_path: Path) -> None:
    save_file({"w": torch.ones(2, 2)}, tmp_path / "part.safetensors")
    with pytest.raises(InputError, match=r"is a folder.*part\.safetensors"):
        open_checkpoint(tmp_path)


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="is not a regular file"):
        open_checkpoint(tmp_path / "pipe")


def test_an_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **options: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "m").write_bytes(b"x")
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(TTCompressError, match="Permission denied") as caught:
        open_checkpoint(tmp_path / "m")
    assert caught.value.exit_code == 1


def test_an_encrypted_entry_is_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2, 2)}, tmp_path / "m")
    data = bytearray((tmp_path / "m").read_bytes())
    directory = data.index(b"PK\x01\x02")
    data[directory + 8] |= 1
    (tmp_path / "m").write_bytes(data)
    with pytest.raises(CheckpointError, match="encrypted"):
        open_checkpoint(tmp_path / "m")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_storage_smaller_than_claimed_is_refused(legacy: bool, tmp_path: Path) -> None:
    path = tmp_path / "m"
    torch.save({"w": torch.ones(2, 2)}, path, _use_new_zipfile_serialization=not legacy)
    data = path.read_bytes()
    old = b"K\x04" if not legacy else struct.pack("<q", 4) + struct.pack("<f", 1)
    new = b"K\x40" if not legacy else struct.pack("<q", 2**40) + struct.pack("<f", 1)
    assert old in data
    path.write_bytes(data.replace(old, new))
    with pytest.raises(CheckpointError):
        open_checkpoint(path)


@pytest.mark.parametrize(
    "weight_map, fact",
    [
        ({"w": "../other.bin"}, "outside its own folder"),
        ({"w": "/etc/passwd"}, "outside its own folder"),
        ({"w": 3}, "outside its own folder"),
        ({"w": "missing.bin"}, "missing.bin is missing"),
        ({"v": "part.bin"}, "not in part.bin"),
        ({"w": "m.index.json"}, "m.index.json"),
        ({}, "not the index"),
    ],
)
def test_a_bad_index_is_refused(weight_map: Any, fact: str, tmp_path: Path) -> None:
    save_file({"w": torch.ones(2, 2)}, tmp_path / "part.bin")
    index = tmp_path / "m.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(index)
    assert fact in str(caught.value)


def test_a_big_endian_file_is_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2, 2)}, tmp_path / "m")
    data = (tmp_path / "m").read_bytes()
    assert b"little" in data
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(tmp_path / "m", "w") as new:
        for name in old.namelist():
            new.writestr(name, b"big" if name.endswith("byteorder") else old.read(name))
    with pytest.raises(CheckpointError, match="big-endian"):
        open_checkpoint(tmp_path / "m")


def test_an_entry_that_the_directory_misplaces_is_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2, 2)}, tmp_path / "m")
    data = (tmp_path / "m").read_bytes()
    (tmp_path / "m").write_bytes(data[:4] + data[8:])
    with pytest.raises(CheckpointError, match="not where the archive's directory says"):
        open_checkpoint(tmp_path / "m")


def test_damaged_compressed_data_is_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2, 2)}, tmp_path / "stored")
    with (
        zipfile.ZipFile(tmp_path / "stored") as old,
        zipfile.ZipFile(tmp_path / "m", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    data = bytearray((tmp_path / "m").read_bytes())
    data[60:70] = b"\xff" * 10
    (tmp_path / "m").write_bytes(data)
    with pytest.raises(CheckpointError, match="does not decompress"):
        open_checkpoint(tmp_path / "m")


def test_a_file_that_vanished_after_opening(tmp_path: Path) -> None:
    save_file({"w": torch.ones(2, 2)}, tmp_path / "m")
    checkpoint = open_checkpoint(tmp_path / "m")
    (tmp_path / "m").unlink()
    with pytest.raises(TTCompressError, match="cannot be read"):
        checkpoint.tensor("w")


def test_safetensors_come_in_the_order_of_their_bytes(tmp_path: Path) -> None:
    values = torch.arange(8, dtype=torch.float32)
    entries = {
        name: {"dtype": "F32", "shape": [2, 2], "data_offsets": [begin, begin + 16]}
        for name, begin in (("a", 16), ("b", 0))
    }
    (tmp_path / "m").write_bytes(header(entries, values.numpy().tobytes()))
    checkpoint = open_checkpoint(tmp_path / "m")
    assert [weight.name for weight in checkpoint.weights] == ["b", "a"]
    assert torch.equal(checkpoint.tensor("a"), values[4:].view(2, 2))


def test_foreign_metadata_is_named(tmp_path: Path) -> None:
    save_file({"w": torch.ones(2, 2)}, tmp_path / "m", {"format": "pt", "author": "someone"})
    assert open_checkpoint(tmp_path / "m").notes == ("metadata not carried over: author",)


def test_a_folder_without_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Give a checkpoint file"):
        open_checkpoint(tmp_path)
