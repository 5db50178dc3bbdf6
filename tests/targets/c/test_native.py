"""A model as C in this process: it is called as torch's is, and its library is kept whole."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.targets.c.test_files import chain_part
from ttcompress.errors import MissingExtraError, OutputError, TTCompressError
from ttcompress.targets.c.compiler import compile_files, find_compiler
from ttcompress.targets.c.native import NativeModel, cache_folder, load_native

PART = chain_part(nn.GRU(6, 7, bidirectional=True), "mean")


@pytest.mark.parametrize("lengths", [None, torch.tensor([5, 2, 1])], ids=["full", "ragged"])
@pytest.mark.parametrize(
    "part",
    [PART, chain_part(nn.LSTM(6, 7))],
    ids=["pooled, both ways", "step by step"],
)
def test_sequences_of_any_lengths_give_what_torch_gives(compiler, part, lengths) -> None:
    model = NativeModel(load_native(part, None))
    (inputs,) = part.call.tensors
    with torch.no_grad():
        wanted, after = part.module(inputs, None, lengths)
        again, _ = part.module(inputs, after, lengths)
    found, memory = model(inputs, None, lengths)
    next_found, _ = model(inputs, memory, lengths)
    for ours, torchs in ((found, wanted), (next_found, again)):
        assert ours.shape == torchs.shape
        if lengths is None or part.module.pooling:
            torch.testing.assert_close(ours, torchs, rtol=1e-4, atol=1e-5)
            continue
        for row, exact, length in zip(ours, torchs, lengths.tolist(), strict=True):
            torch.testing.assert_close(row[:length], exact[:length], rtol=1e-4, atol=1e-5)
            assert not row[length:].any()


def test_a_cache_that_cannot_be_written_is_one_message(compiler, tmp_path, monkeypatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(OutputError, match=r"cannot be kept there: .*XDG_CACHE_HOME"):
        load_native(PART, None)


def test_the_cache_is_in_the_users_folder_unless_it_is_named(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("sys.platform", "linux")
    assert cache_folder() == tmp_path / ".cache" / "ttcompress" / "c"
    monkeypatch.setattr("sys.platform", "darwin")
    assert cache_folder() == tmp_path / "Library" / "Caches" / "ttcompress" / "c"


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Takes the compiler's place: notes its arguments, one call a line, and runs a line of sh."""

    def write(line: str) -> Path:
        path, calls = tmp_path / "stub cc", tmp_path / "calls"
        path.write_text(f'#!/bin/sh\necho "$@" >> "{calls}"\n{line}\n')
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("CC", f"'{path}' -pipe")
        return calls

    return write


def test_what_fails_to_compile_leaves_nothing_in_the_cache(stub, tmp_path, monkeypatch) -> None:
    stub("echo 'model.c:1: error: no room' >&2; exit 1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(TTCompressError, match=r"does not compile .* error: no room"):
        load_native(PART, None)
    assert not list(cache_folder().iterdir())


def test_a_compiler_that_does_not_know_this_processor_is_asked_again(stub, tmp_path) -> None:
    calls = stub('case "$*" in *-march=native*) echo unknown >&2; exit 1;; esac')
    compile_files({"a.c": b""}, ("a.c",), tmp_path / "a")
    first, second = calls.read_text().splitlines()
    assert first.startswith("-pipe -std=c99 ") and first.endswith(f"a.c -o {tmp_path / 'a'}")
    assert second == first.replace(" -march=native", "")


@pytest.mark.parametrize(
    ("line", "fact"),
    [
        ("exit 3", "error: exit code 3"),
        ("echo 'cc: killed' >&2; exit 1", "cc: killed$"),
        ("exec sleep 30", "not done after 0.2 seconds"),
    ],
)
def test_a_compiler_that_fails_otherwise_is_one_message(
    stub, tmp_path, monkeypatch, line: str, fact: str
) -> None:
    stub(line)
    monkeypatch.setattr("ttcompress.targets.c.compiler.SECONDS", 0.2)
    with pytest.raises(TTCompressError, match=f"does not compile the C code: .*{fact}"):
        compile_files({"a.c": b""}, ("a.c",), tmp_path / "a")


def test_a_named_compiler_is_the_only_one(stub, tmp_path, monkeypatch) -> None:
    stub("")
    assert find_compiler() == (str(tmp_path / "stub cc"), "-pipe")
    monkeypatch.setenv("CC", str(tmp_path / "absent"))
    assert find_compiler() is None
    with pytest.raises(MissingExtraError, match="not what CC names"):
        compile_files({}, (), tmp_path / "a")


def test_without_a_named_one_the_first_there_is_taken(tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_compiler() is None
    os.symlink("/bin/sh", tmp_path / "clang")
    assert find_compiler() == ("clang",)
    os.symlink("/bin/sh", tmp_path / "cc")
    assert find_compiler() == ("cc",)
