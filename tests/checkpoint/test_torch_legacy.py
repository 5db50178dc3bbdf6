"""torch's format before 1.6, written by hand where today's torch no longer writes it."""

import io
import pickle
import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from ttcompress.checkpoint import open_checkpoint
from ttcompress.checkpoint.containers.torch_legacy import MAGIC, VERSION
from ttcompress.errors import CheckpointError

VALUES = torch.arange(10, dtype=torch.float32)
MACHINE = {"protocol_version": VERSION, "little_endian": True}


class Named:
    """Stands for a storage in a hand-written file."""

    def __init__(self, identity: tuple[Any, ...]) -> None:
        self.identity = identity


class Writer(pickle.Pickler):
    def persistent_id(self, value: Any) -> Any:
        return value.identity if isinstance(value, Named) else None


class Call:
    def __init__(self, storage: Named, offset: int, shape: tuple[int, ...]) -> None:
        self.args = (storage, offset, shape, (shape[1], 1))

    def __reduce__(self) -> tuple[Any, ...]:
        return torch._utils._rebuild_tensor, self.args


def framed(
    content: Any,
    version: int = VERSION,
    machine: Any = MACHINE,
    keys: tuple[str, ...] | None = ("7",),
    values: torch.Tensor = VALUES,
) -> bytes:
    buffer = io.BytesIO()
    for part in (MAGIC, version, machine):
        pickle.dump(part, buffer, 2)
    Writer(buffer, 2).dump(content)
    pickle.dump(keys if keys is None else list(keys), buffer, 2)
    for _ in keys or ():
        buffer.write(struct.pack("<q", values.numel()) + values.numpy().tobytes())
    return buffer.getvalue()


def write(path: Path, content: Any, **options: Any) -> None:
    path.write_bytes(framed(content, **options))


def storage(*view: Any) -> Named:
    return Named(("storage", torch.FloatStorage, "7", "cuda:0", 10, *view))


def test_a_file_of_torch_0_3_is_read(tmp_path: Path) -> None:
    write(tmp_path / "m", {"w": Call(storage(), 2, (2, 3))})
    assert torch.equal(open_checkpoint(tmp_path / "m").tensor("w"), VALUES[2:8].view(2, 3))


def test_a_view_of_a_storage_is_read(tmp_path: Path) -> None:
    write(tmp_path / "m", {"w": Call(storage(("8", 3, 6)), 1, (2, 2))})
    assert torch.equal(open_checkpoint(tmp_path / "m").tensor("w"), VALUES[4:8].view(2, 2))


def test_the_empty_view_metadata_of_later_versions_is_none(tmp_path: Path) -> None:
    write(tmp_path / "m", {"w": Call(storage(None), 0, (2, 5))})
    assert torch.equal(open_checkpoint(tmp_path / "m").tensor("w"), VALUES.view(2, 5))


GOOD = {"w": Call(storage(None), 0, (2, 5))}


@pytest.mark.parametrize(
    "options, fact",
    [
        ({"version": 1000}, "expected version 1001, got 1000"),
        ({"machine": {"little_endian": False}}, "big-endian"),
        ({"machine": []}, "version"),
        ({"keys": ()}, "not in the file"),
        ({"keys": ("9",)}, "does not use"),
        ({"keys": None}, "no list of its storages"),
    ],
)
def test_a_damaged_frame_is_refused(options: dict[str, Any], fact: str, tmp_path: Path) -> None:
    write(tmp_path / "m", GOOD, **options)
    with pytest.raises(CheckpointError, match=fact):
        open_checkpoint(tmp_path / "m")


@pytest.mark.parametrize(
    "identity",
    [
        ("other", torch.FloatStorage, "7", "cpu", 10, None),
        ("storage", torch.nn.Linear, "7", "cpu", 10, None),
        ("storage", torch.FloatStorage, "7", "cpu", -1, None),
        ("storage", torch.FloatStorage, "7", "cpu", "10", None),
        ("storage",),
        ("storage", torch.FloatStorage, "7", "cpu", 10, ("8", -3, 6)),
        ("storage", torch.FloatStorage, "7", "cpu", 10, ("8", 0.5, 6)),
        ("storage", torch.FloatStorage, "7", "cpu", 10, ("8", 3, "6")),
    ],
)
def test_a_wrong_identity_is_refused(identity: tuple[Any, ...], tmp_path: Path) -> None:
    write(tmp_path / "m", {"w": Call(Named(identity), 0, (2, 5))})
    with pytest.raises(CheckpointError, match="damaged"):
        open_checkpoint(tmp_path / "m")


def test_a_plain_pickle_with_another_format_inside_is_refused(tmp_path: Path) -> None:
    data = pickle.dumps({"w": torch.ones(2, 2)}, 4)
    magic = pickle.dumps(MAGIC, 2)[2:-1]
    assert magic in data
    (tmp_path / "m").write_bytes(data.replace(magic, pickle.dumps(MAGIC + 1, 2)[2:-1]))
    with pytest.raises(CheckpointError, match="damaged"):
        open_checkpoint(tmp_path / "m")


class Stored:
    """A tensor as a plain pickle has it: on a storage that is a whole old-format file."""

    def __init__(self, values: torch.Tensor) -> None:
        self.values = values

    def __reduce__(self) -> tuple[Any, ...]:
        arguments = (Framed(self.values), 0, (2, 5), (5, 1), False, None)
        return torch._utils._rebuild_tensor_v2, arguments


class Framed:
    def __init__(self, values: torch.Tensor) -> None:
        self.values = values

    def __reduce__(self) -> tuple[Any, ...]:
        return torch.storage._load_from_bytes, (framed(storage(None), values=self.values),)


def test_storages_of_one_key_in_one_plain_pickle_stay_apart(tmp_path: Path) -> None:
    """A key is a memory address, which a program that pickles tensor after tensor reuses."""
    (tmp_path / "m").write_bytes(pickle.dumps({"a": Stored(VALUES), "b": Stored(-VALUES)}, 4))
    checkpoint = open_checkpoint(tmp_path / "m")
    assert torch.equal(checkpoint.tensor("a"), VALUES.view(2, 5))
    assert torch.equal(checkpoint.tensor("b"), -VALUES.view(2, 5))
