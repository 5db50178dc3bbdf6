"""The command line as a process: how fast it starts, what it imports, how it ends when it must."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

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


def imported_by(*arguments: str | Path, folder: Path) -> set[str]:
    """All modules that a process has when the command has ended well."""
    code = (
        "import sys\nfrom ttcompress.cli import app\n"
        f"app({list(map(str, arguments))!r}, standalone_mode=False)\n"
        "print('modules:', *sys.modules)"
    )
    found = python("-c", code, cwd=folder)
    assert found.returncode == 0, found.stderr
    return set(found.stdout.rpartition("modules:")[2].split())


@pytest.mark.parametrize("notation", ["table", "json", "markdown", "html"])
def test_a_report_is_shown_without_torch(notation: str, tiny_artifact: Path, tmp_path) -> None:
    known = imported_by("report", tiny_artifact, "--as", notation, folder=tmp_path)
    assert "ttcompress.results.document" in known
    assert "torch" not in known


@pytest.mark.parametrize("command", ["list", "show balanced", "check balanced", "schema"])
def test_recipes_are_read_without_torch(command: str, tmp_path: Path) -> None:
    assert "torch" not in imported_by("recipes", *command.split(), folder=tmp_path)


def test_decomposing_does_not_wait_for_the_compiler(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Importing torch._dynamo takes longer than decomposing a small model."""
    given = (tiny_checkpoint, "--factor", "2", "-o", "small.safetensors", "-q")
    known = imported_by("decompose", *given, folder=tmp_path)
    assert "torch" in known
    assert "torch._dynamo" not in known


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
