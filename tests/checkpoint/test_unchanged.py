"""A model is of one state of its files: the hash in an artifact is of the numbers in it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ttcompress.artifact import load
from ttcompress.checkpoint import checkpoint as reading
from ttcompress.checkpoint import open_checkpoint
from ttcompress.checkpoint.assembly import Assembly
from ttcompress.checkpoint.containers import Source
from ttcompress.errors import TTCompressError
from ttcompress.system.files import FileBytes
from ttcompress.system.safetensors import Entry
from ttcompress.workflows.compress import compress


def saved(path: Path, value: float = 1.0) -> Path:
    torch.save({"w": torch.full((20, 10), value)}, path)
    return path


def rewritten(path: Path) -> None:
    """As a training that goes on saves its model: the same length, other numbers."""
    saved(path, 2.0)


def replaced(path: Path) -> None:
    """The same bytes and times in another file."""
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    os.utime(other, ns=times)
    other.replace(path)


def cut(path: Path) -> None:
    os.truncate(path, 700)


def longer(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


CHANGES = pytest.mark.parametrize("change", [rewritten, replaced, cut, longer])
Change = Callable[[Path], None]
SAID = "was changed while it was being read .*Run again when nothing writes to it"


@CHANGES
def test_a_change_after_opening_is_told_by_the_next_tensor(change: Change, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(saved(tmp_path / "model.pt"))
    assert checkpoint.tensor("w")[0, 0] == 1
    change(tmp_path / "model.pt")
    with pytest.raises(TTCompressError, match=SAID) as caught:
        checkpoint.tensor("w")
    assert caught.value.exit_code == 1


@CHANGES
def test_a_change_before_the_hash_is_told(
    change: Change, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, assemble = saved(tmp_path / "model.pt"), reading.assemble

    def meanwhile(source: Source, key: str | None) -> Assembly:
        assembly = assemble(source, key)
        change(path)
        return assembly

    monkeypatch.setattr(reading, "assemble", meanwhile)
    with pytest.raises(TTCompressError, match=SAID):
        open_checkpoint(path)


def test_a_shard_counts_too(tmp_path: Path) -> None:
    for name in "ab":
        save_file({name: torch.ones(2, 2)}, tmp_path / f"{name}.safetensors")
    index = tmp_path / "model.index.json"
    index.write_text(json.dumps({"weight_map": {n: f"{n}.safetensors" for n in "ab"}}))
    checkpoint = open_checkpoint(index)
    save_file({"b": torch.zeros(2, 2)}, tmp_path / "b.safetensors")
    with pytest.raises(TTCompressError, match=r"b\.safetensors: " + SAID):
        checkpoint.tensor("a")


def test_a_model_that_changes_on_the_way_is_not_compressed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, reads = saved(tmp_path / "model.pt"), []
    read = FileBytes.read

    def slow(self: FileBytes, start: int, stop: int) -> bytearray:
        reads.append(start)
        if stop - start == 800:  # the weight's own bytes, after the hash was taken
            rewritten(path)
        return read(self, start, stop)

    monkeypatch.setattr(FileBytes, "read", slow)
    with pytest.raises(TTCompressError, match=SAID):
        rule = {"weights": "w"}
        compress(path, {"version": 1, "budget": {"factor": 2}, "rules": [rule], "default": "keep"})
    assert reads


def test_an_artifact_that_changes_while_it_is_loaded(
    tmp_path: Path, tiny_artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, read = tmp_path / "a.safetensors", Entry.read
    path.write_bytes(tiny_artifact.read_bytes())

    def meanwhile(entry: Entry) -> torch.Tensor:
        tensor = read(entry)
        os.utime(path, ns=(0, 0))
        return tensor

    monkeypatch.setattr(Entry, "read", meanwhile)
    with pytest.raises(TTCompressError, match=SAID):
        load(path)


def test_a_loaded_artifact_does_not_look_at_its_file_again(
    tmp_path: Path, tiny_artifact: Path
) -> None:
    """What a library maps into memory would change, or end the program by a signal."""
    path = tmp_path / "a.safetensors"
    path.write_bytes(tiny_artifact.read_bytes())
    loaded = load(path)
    os.truncate(path, 0)
    expected = load(tiny_artifact).state_dict()
    assert all(torch.equal(t, expected[name]) for name, t in loaded.state_dict().items())
