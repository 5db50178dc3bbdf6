"""Error messages for files that are not PyTorch checkpoints: what they are, how to convert them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ttcompress.errors import CheckpointError

_KERAS = (
    "is a Keras (HDF5) file. Load it with Keras, and save its arrays under the names of a "
    "torch.nn.LSTM: weight_ih_l0 is the kernel transposed, weight_hh_l0 the recurrent kernel "
    "transposed (the gate order is the same), bias_ih_l0 the bias; then "
    "safetensors.numpy.save_file(arrays, 'model.safetensors')."
)
_TENSORFLOW = (
    "is a TensorFlow file. Load the model with TensorFlow, write its arrays with "
    "safetensors.numpy.save_file(arrays, 'model.safetensors') under the names of a torch.nn.LSTM "
    "(kernels transposed), and give that file."
)
_ONNX = (
    "is an ONNX model. Give the PyTorch checkpoint it was exported from; or read its "
    "initializers with onnx.numpy_helper.to_array and write them with "
    "safetensors.numpy.save_file under the names of a torch.nn.LSTM (ONNX orders the gates "
    "input, output, forget, cell)."
)
_NUMPY = (
    "is a numpy archive. Write its arrays with safetensors.numpy.save_file(dict(numpy.load(path)), "
    "'model.safetensors') and give that file."
)
_PACKED = "is a compressed archive ({kind}). Unpack it and give the checkpoint inside."
_LFS = "is a git-LFS pointer, not the model. Fetch the model with `git lfs pull`."
_HTML = (
    "is a web page, so the download went wrong. "
    "Open its address in a browser and download the file."
)

_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89HDF\r\n\x1a\n", _KERAS),
    (4, b"TFL3", _TENSORFLOW),
    (0, b"\x08\x01\x12", _TENSORFLOW),
    (0, b"\x93NUMPY", _NUMPY),
    (0, b"version https://git-lfs", _LFS),
    (0, b"\x1f\x8b", _PACKED.format(kind="gzip")),
    (0, b"BZh", _PACKED.format(kind="bzip2")),
    (0, b"\xfd7zXZ", _PACKED.format(kind="xz")),
    (0, b"\x28\xb5\x2f\xfd", _PACKED.format(kind="zstandard")),
    (0, b"7z\xbc\xaf", _PACKED.format(kind="7z")),
    (0, b"Rar!", _PACKED.format(kind="rar")),
    (257, b"ustar", _PACKED.format(kind="tar, as torch wrote before 0.2, or a plain archive")),
    (0, b"GGUF", "is a GGUF model. Give the PyTorch checkpoint it was converted from."),
)
"""Offset, bytes, and message."""

_TENSORFLOW_INDEX_END = bytes.fromhex("57fb808b247547db")  # a LevelDB table
BIG_ENDIAN = "was saved on a big-endian machine. Load it with torch.load and save it again here."
_ACCEPTED = "Give a file written by torch.save, torch.jit.save or safetensors."


def explain_foreign_file(head: bytes, tail: bytes) -> CheckpointError:
    """The error for a file that holds no PyTorch weights, by its first and last bytes."""
    for offset, magic, message in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return CheckpointError(message)
    # ONNX is protobuf, without a magic number: field 1 is its version, field 2 the producer.
    if len(head) > 2 and head[0] == 8 and 3 <= head[1] < 32 and head[2] in b"\x12\x1a\x3a\x42":
        return CheckpointError(_ONNX)
    if tail.endswith(_TENSORFLOW_INDEX_END):
        return CheckpointError(_TENSORFLOW)
    if head.lstrip()[:9].lower().startswith((b"<!doctype", b"<html")):
        return CheckpointError(_HTML)
    if _is_text(head):
        return CheckpointError(f"is a text file, not a checkpoint. {_ACCEPTED}")
    return CheckpointError(
        f"is not a known kind of file (its first bytes are {head[:8].hex(' ')}). {_ACCEPTED}"
    )


def explain_foreign_zip(names: Iterable[str]) -> CheckpointError:
    """The error for a zip archive without a `data.pkl`."""
    base = {Path(name).name for name in names}
    if "model.weights.h5" in base:
        return CheckpointError(_KERAS)
    if "saved_model.pb" in base:
        return CheckpointError(_TENSORFLOW)
    if base and all(name.endswith(".npy") for name in base):
        return CheckpointError(_NUMPY)
    model = min(
        (n for n in base if n.endswith((".pt", ".pth", ".ckpt", ".safetensors"))), default=""
    )
    if model:
        return CheckpointError(
            f"is a zip archive that contains {model}. Unpack it and give that file."
        )
    return CheckpointError(f"is a zip archive without a data.pkl, so not a checkpoint. {_ACCEPTED}")


def _is_text(head: bytes) -> bool:
    """Whether the bytes are UTF-8 without control characters; the last character may be cut."""
    try:
        text = head.decode("utf-8", errors="strict")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:
            return False
        text = head[: error.start].decode("utf-8")
    return all(char.isprintable() or char in "\n\r\t\f" for char in text)
