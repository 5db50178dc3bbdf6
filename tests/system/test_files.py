"""Outputs: whole or not at all."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from ttcompress.errors import OutputError, OutputPathError
from ttcompress.system.files import check_output, written_whole


def test_a_file_appears_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "out.bin"
    with written_whole(target) as file:
        file.write(b"one")
        assert not target.exists()
    assert target.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [target]


def test_what_a_killed_writer_left_is_cleared_away(tmp_path: Path) -> None:
    target, other = tmp_path / "out[1].bin", tmp_path / ".other.bin.abc.part"
    other.write_bytes(b"of another output")
    killed = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from ttcompress.system.files import written_whole\n"
        "with written_whole(Path(sys.argv[1])) as file:\n"
        "    file.write(b'half')\n    file.flush()\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", killed, target])
    assert len(list(tmp_path.glob(".out*.part"))) == 1
    with written_whole(target) as file:
        file.write(b"whole")
    assert target.read_bytes() == b"whole"
    assert sorted(tmp_path.iterdir()) == [other, target]


def test_a_writer_at_work_is_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "out.bin"
    with written_whole(target) as first:
        first.write(b"first")
        with written_whole(target) as second:
            second.write(b"second")
    assert target.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [target]


def test_a_file_taken_for_a_remain_before_it_is_held_is_created_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create, taken = tempfile.mkstemp, list[str]()

    def taken_once(**where: Any) -> tuple[int, str]:
        handle, name = create(**where)
        if not taken:
            taken.append(name)
            os.unlink(name)
        return handle, name

    monkeypatch.setattr("tempfile.mkstemp", taken_once)
    with written_whole(tmp_path / "out.bin") as file:
        file.write(b"whole")
    assert taken
    assert (tmp_path / "out.bin").read_bytes() == b"whole"


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
    with pytest.raises(OutputPathError, match="already exists"):
        check_output(target, overwrite=False)
    with written_whole(target, overwrite=True) as file:
        file.write(b"after")
    assert target.read_bytes() == b"after"


@pytest.mark.parametrize(
    ("name", "fact"),
    [
        ("", "is a folder"),
        ("missing/out.bin", "does not exist"),
        ("A" * 300, "no file can be written there"),
        ("a\0b", "no file can be written there"),
    ],
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


@pytest.mark.parametrize("size", [0, 100, 20_000])
def test_a_checkpoint_that_is_cut_short_is_told_as_such(tmp_path: Path, size: int) -> None:
    """torch meets the failed write once more as it closes its archive, by another error."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        with (
            pytest.raises(OutputError, match=r"out: cannot be written: File too large\. Choose"),
            written_whole(tmp_path / "out") as file,
        ):
            torch.save({"w": torch.zeros(300_000)}, file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_other_errors_of_a_block_pass(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="of the block"), written_whole(tmp_path / "out"):
        raise RuntimeError("of the block")
    assert list(tmp_path.iterdir()) == []


def test_a_link_is_replaced_and_never_written_through(tmp_path: Path) -> None:
    elsewhere, target = tmp_path / "elsewhere", tmp_path / "out"
    elsewhere.write_bytes(b"another's")
    target.symlink_to(elsewhere)
    with pytest.raises(OutputPathError, match="already exists"):
        check_output(target, overwrite=False)
    with written_whole(target, overwrite=True) as file:
        file.write(b"ours")
    assert (elsewhere.read_bytes(), target.read_bytes()) == (b"another's", b"ours")
    assert not target.is_symlink()


def test_a_link_that_leads_nowhere_is_there_already(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.symlink_to(tmp_path / "absent")
    with pytest.raises(OutputPathError, match="already exists"):
        check_output(target, overwrite=False)
    target.unlink()
    target.symlink_to(target)
    with pytest.raises(OutputPathError, match="no file can be written there"):
        check_output(target, overwrite=True)


def test_a_folder_behind_a_link_is_written_to(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with written_whole(tmp_path / "link" / "out") as file:
        file.write(b"one")
    assert [path.name for path in (tmp_path / "real").iterdir()] == ["out"]


def test_a_pipe_named_as_a_remain_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".out.abc.part")
    with written_whole(tmp_path / "out") as file:
        file.write(b"one")
    assert (tmp_path / "out").read_bytes() == b"one"
