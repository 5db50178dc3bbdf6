"""Error messages for files that are not PyTorch checkpoints: what they are, how to convert them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from ttcompress.errors import CheckpointError

_KERAS = """is a Keras model{without}. Convert it with Keras, and give model.pt:
    import keras, torch
    tensors = {{}}
    for layer in keras.models.load_model({path!r}).layers:
        arrays, names = list(map(torch.tensor, layer.get_weights())), "abcdefghij"
        if type(layer).__name__ == "LSTM":  # torch's order of gates, but kernels transposed
            arrays[:2] = [kernel.T.contiguous() for kernel in arrays[:2]]
            arrays += [0 * bias for bias in arrays[2:]]  # torch adds a second bias
            names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
        tensors |= {{f"{{layer.name}}.{{own}}": array for own, array in zip(names, arrays)}}
    torch.save(tensors, "model.pt")
    A layer inside another one, such as Bidirectional, needs such names too."""
_TENSORFLOW = (
    "is a TensorFlow file. Load the model with TensorFlow, write its arrays with "
    "safetensors.numpy.save_file(arrays, 'model.safetensors') under the names of a torch.nn.LSTM "
    "(kernels transposed), and give that file."
)
_ONNX = """is an ONNX model{without}. Give the checkpoint it was exported from; or convert it and \
give model.pt:
    import onnx, torch
    graph = onnx.load({path!r}).graph
    tensors = {{t.name: torch.tensor(onnx.numpy_helper.to_array(t)) for t in graph.initializer}}
    order = {{"LSTM": [0, 2, 3, 1], "GRU": [1, 0, 2], "RNN": [0]}}  # of torch's gates among ONNX's
    for n, node in enumerate(node for node in graph.node if node.op_type in order):
        stacked = [tensors.pop(name) for name in node.input[1:4] if name]
        for (w, r, *biases), side in zip(zip(*stacked), ("_l0", "_l0_reverse")):
            parts = {{"weight_ih": w, "weight_hh": r}}
            for both in biases:
                parts |= zip(("bias_ih", "bias_hh"), both.chunk(2))
            for own, rows in parts.items():
                blocks = rows.chunk(len(order[node.op_type]))
                gates = [blocks[gate] for gate in order[node.op_type]]
                tensors[f"layer{{n}}.{{own}}{{side}}"] = torch.cat(gates)
    torch.save(tensors, "model.pt")
    Recurrent layers become layer0, layer1, ...; other names stay those of the ONNX model."""
_NPZ = """is a numpy archive{without}. Convert it and give model.pt:
    import numpy, torch
    arrays = {{n: a for n, a in numpy.load({path!r}).items() if a.dtype.kind in "fiub"}}
    torch.save({{n: torch.tensor(a) for n, a in arrays.items()}}, "model.pt")
    Recurrent layers are recognised by torch's names, such as lstm.weight_ih_l0."""
_NPY = """is one numpy array, without a name. Give it one and give model.pt:
    import numpy, torch
    torch.save({{"weight": torch.tensor(numpy.load({path!r}))}}, "model.pt")
    A model has several, in one archive."""
_PT2 = """is a program of torch.export. Take its state dict and give model.pt:
    import torch
    torch.save(dict(torch.export.load({path!r}).state_dict), "model.pt")
    This runs what the file says, so do it only with a file that you trust."""
_OLD_SCRIPT = (
    "is a TorchScript archive of torch before 1.3 (model.json). Load it with the torch that wrote "
    "it, and save its state_dict()."
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
    (0, b"\x93NUMPY", _NPY),
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
ACCEPTED = "Give a file written by torch.save, torch.jit.save or safetensors."

MAX_SCANNED = 256 * 2**20
"""Bytes of a file in which the names of recurrent layers are looked for."""

_RECURRENT = re.compile(
    rb'lstm|weight_hh|recurrent_kernel|"(?:GRU|SimpleRNN)"|"\x03(?:GRU|RNN)', re.IGNORECASE
)


def explain_foreign_file(path: Path, head: bytes, tail: bytes) -> CheckpointError:
    """The error for a file that holds no PyTorch weights, by its first and last bytes."""
    for offset, magic, message in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return _explain(message, path)
    # ONNX is protobuf, without a magic number: field 1 is its version, field 2 the producer.
    if len(head) > 2 and head[0] == 8 and 3 <= head[1] < 32 and head[2] in b"\x12\x1a\x3a\x42":
        return _explain(_ONNX, path)
    if tail.endswith(_TENSORFLOW_INDEX_END):
        return CheckpointError(_TENSORFLOW)
    if head.lstrip()[:9].lower().startswith((b"<!doctype", b"<html")):
        return CheckpointError(_HTML)
    if _is_text(head):
        return CheckpointError(f"is a text file, not a checkpoint. {ACCEPTED}")
    return CheckpointError(
        f"is not a known kind of file (its first bytes are {head[:8].hex(' ')}). {ACCEPTED}"
    )


def explain_foreign_zip(path: Path, names: Iterable[str]) -> CheckpointError | None:
    """The error for a zip archive that another program writes; None for any other one."""
    base = {Path(name).name for name in names}
    if "model.weights.h5" in base:
        return _explain(_KERAS, path)
    if "saved_model.pb" in base:
        return CheckpointError(_TENSORFLOW)
    if base and all(name.endswith(".npy") for name in base):
        return _explain(_NPZ, path)
    if "serialized_exported_program.json" in base or {"archive_format", "archive_version"} <= base:
        return _explain(_PT2, path)
    return CheckpointError(_OLD_SCRIPT) if "model.json" in base else None


def _explain(message: str, path: Path) -> CheckpointError:
    """Fill in the path, and say first if the file names no recurrent layer."""
    if "{" not in message:
        return CheckpointError(message)
    without = "" if _names_recurrent(path) else ", and names no recurrent layer"
    return CheckpointError(message.format(path=str(path), without=without))


def _names_recurrent(path: Path) -> bool:
    """Whether a word for a recurrent layer is in a file, or in what a zip calls its entries."""
    before, size = b"", 0
    with path.open("rb") as file:
        while size < MAX_SCANNED and (block := file.read(2**20)):
            if _RECURRENT.search(before + block):
                return True
            before, size = block[-16:], size + len(block)
    return size >= MAX_SCANNED  # not known


def _is_text(head: bytes) -> bool:
    """Whether the bytes are UTF-8 without control characters; the last character may be cut."""
    try:
        text = head.decode("utf-8", errors="strict")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:
            return False
        text = head[: error.start].decode("utf-8")
    return all(char.isprintable() or char in "\n\r\t\f" for char in text)
