"""Outputs: whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from ttcompress.errors import OutputError, OutputPathError
from ttcompress.files import check_output, written_whole


def test_a_file_appears_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "out.bin"
    with written_whole(target) as file:
        file.write(b"one")
        assert not target.exists()
    assert target.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [target]


def test_a_new_file_has_ordinary_permissions(tmp_path: Path) -> None:
    with written_whole(tmp_path / "out.bin") as file:
        file.write(b"one")
    (tmp_path / "plain").write_bytes(b"")
    modes = [(tmp_path / name).stat().st_mode for name in ("out.bin", "plain")]
    assert modes[0] == modes[1]


def test_a_block_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "out.bin"
    target.write_bytes(b"before")
    with pytest.raises(KeyError), written_whole(target, overwrite=True) as file:
        file.write(b"half")
        raise KeyError
    assert target.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [target]


def test_overwriting_must_be_asked_for(tmp_path: Path) -> None:
    target = tmp_path / "out.bin"
    target.write_bytes(b"before")
    with pytest.raises(OutputPathError, match="exists already"):
        check_output(target, overwrite=False)
    with written_whole(target, overwrite=True) as file:
        file.write(b"after")
    assert target.read_bytes() == b"after"


@pytest.mark.parametrize(
    ("name", "fact"), [("", "is a folder"), ("missing/out.bin", "does not exist")]
)
def test_folders_are_refused_even_when_overwriting(tmp_path: Path, name: str, fact: str) -> None:
    with pytest.raises(OutputPathError, match=fact):
        check_output(tmp_path / name, overwrite=True)


@pytest.mark.parametrize(
    ("code", "fact"), [(errno.ENOSPC, "disk is full"), (errno.EIO, "cannot be written")]
)
def test_a_failing_disk_is_named_and_leaves_nothing(tmp_path: Path, code: int, fact: str) -> None:
    target = tmp_path / "out.bin"
    with pytest.raises(OutputError, match=fact), written_whole(target):
        raise OSError(code, os.strerror(code))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_takes_no_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    with pytest.raises(OutputError, match="Permission denied"), written_whole(tmp_path / "out"):
        raise AssertionError("the block must not run")
