"""The command line as a process: how fast it starts, what it imports, how it ends when it must."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Sequence

import pytest
from typer.testing import CliRunner

from ttcompress.cli import app

HEAVY = ("torch", "pydantic", "numpy", "rich", "safetensors", "tensorly")


@pytest.fixture(autouse=True)
def buffered(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a user's Python is: what it writes waits until the end."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)


def python(*arguments: str, **more) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, **more)


def heavy_imports(statement: str) -> list[str]:
    found = python(
        "-c", f"{statement}\nimport sys\nprint(*(m for m in {HEAVY} if m in sys.modules))"
    )
    assert found.returncode == 0, found.stderr
    return found.stdout.split()


@pytest.mark.parametrize("module", ["ttcompress", "ttcompress.cli", "ttcompress.__main__"])
def test_importing_is_light(module: str) -> None:
    assert heavy_imports(f"import {module}") == []


def test_the_test_of_light_imports_can_fail() -> None:
    assert heavy_imports("import numpy") == ["numpy"]


def seconds(command: Sequence[str]) -> float:
    """Of processor time: what else runs on the machine then hardly counts."""
    began = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert python(*command).returncode == 0
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime


def test_help_answers_at_once() -> None:
    """The best of several runs of each, taken in turn."""
    pairs = [(seconds(["-c", "pass"]), seconds(["-m", "ttcompress", "--help"])) for _ in range(7)]
    empty, help = (min(column) for column in zip(*pairs, strict=True))
    assert help <= 3 * empty + 0.150


def test_a_reader_that_leaves_early_ends_the_program_quietly() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        command = [sys.executable, "-m", "ttcompress", "recipes", "list", "--json"]
        result = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False)
    finally:
        os.close(writer)
    assert (result.returncode, result.stderr) == (1, b"")


@pytest.mark.parametrize(
    ("raised", "code"), [(KeyboardInterrupt(), 130), (RuntimeError(), 1), (ZeroDivisionError(), 1)]
)
def test_only_the_programs_own_errors_are_caught(
    raised, code, monkeypatch, tiny_checkpoint
) -> None:
    def fail(*_, **__) -> None:
        raise raised

    monkeypatch.setattr("ttcompress.workflows.inspect.open_checkpoint", fail)
    result = CliRunner().invoke(app, ["inspect", str(tiny_checkpoint)])
    assert result.exit_code == code
    assert isinstance(result.exception, SystemExit if code == 130 else type(raised))


def test_usage_errors_exit_2() -> None:
    for arguments in (
        ["decompose"],
        ["decompose", "x.pt", "--nonsense"],
        ["report", "--as", "xml"],
    ):
        assert CliRunner().invoke(app, arguments).exit_code == 2
