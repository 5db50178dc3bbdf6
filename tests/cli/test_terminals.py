"""What a terminal, a pipe, NO_COLOR and Windows' encodings show, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ttcompress.cli import console
from ttcompress.errors import CheckpointError
from ttcompress.reporting.table import Column, Table

PROGRAM = [sys.executable, "-m", "ttcompress"]
RED = "\x1b[31m"


def environment(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS", "FORCE_COLOR")}
    return kept | {"TERM": "xterm", "PYTHONPATH": os.pathsep.join(sys.path)} | more


def on_a_terminal(*arguments: str | Path, **more: str) -> str:
    """All that a command shows on a terminal of 80 columns."""
    pty = pytest.importorskip("pty", reason="a terminal of Unix")
    ours, theirs = pty.openpty()
    command = [*PROGRAM, *map(str, arguments)]
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment(**more)
    ) as process:
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 4096):
                shown += part
        except OSError:  # how Linux says that the other end is closed
            pass
        process.wait()
    os.close(ours)
    return shown.decode().replace("\r\n", "\n")


def piped(*arguments: str | Path, **more: str) -> subprocess.CompletedProcess[bytes]:
    command = [*PROGRAM, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, env=environment(**more), check=False)


def test_an_error_is_red_and_its_cure_stands_below() -> None:
    shown = on_a_terminal("inspect", "absent.pt")
    fact, cure, rest = shown.split("\n")
    assert fact.startswith("\x1b[1;31merror: ") and RED in fact
    assert "absent.pt: no such file." in fact
    assert cure.startswith("  Check the path; you are in ") and "\x1b" not in cure
    assert rest == ""


def test_without_colour_the_cure_stands_below_all_the_same() -> None:
    shown = on_a_terminal("inspect", "absent.pt", NO_COLOR="1")
    assert RED not in shown and "31m" not in shown
    assert "\n  Check the path" in shown


def test_a_pipe_gets_one_line_without_codes() -> None:
    result = piped("inspect", "absent.pt")
    assert result.returncode == 2
    (line,) = result.stderr.decode().splitlines()
    assert line.startswith("error: absent.pt: no such file. Check the path")


def test_the_cure_of_each_problem_is_set_apart() -> None:
    shown = console.set_apart(
        "mine.yaml: 2 problems\n"
        "  seed (line 2): expected a number, got 'x'.\n"
        "      Write 0, as in 1.0e-3. Or omit it.\n"
        "  bugdet: unknown key. Did you mean `budget`?"
    )
    assert shown.plain.splitlines() == [
        "error: mine.yaml: 2 problems",
        "  seed (line 2): expected a number, got 'x'.",
        "      Write 0, as in 1.0e-3. Or omit it.",
        "  bugdet: unknown key.",
        "    Did you mean `budget`?",
    ]
    red = "".join(shown.plain[span.start : span.end] for span in shown.spans if "red" in span.style)
    assert "Write 0" not in red and "Did you mean" not in red
    assert "unknown key." in red and "2 problems" in red


def test_an_error_without_a_cure_is_all_fact() -> None:
    shown = console.set_apart(str(CheckpointError("model.pt: is empty (0 bytes)")))
    assert shown.plain == "error: model.pt: is empty (0 bytes)"


def test_no_table_is_cut_in_a_pipe(monkeypatch, capsys) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    names = ["layer." * 80 + "weight_hh_l0", "x" * 900]
    columns = (Column("weight", name=True), Column("spare", spare=1), Column("much", right=True))
    rows = tuple((name, "words " * 40, "1,048,576") for name in names)
    console.show("", [Table(columns, rows)])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert len(lines) == 3
    for line, name in zip(lines[1:], names, strict=True):
        assert line.startswith(name) and line.rstrip().endswith("1,048,576")
        assert line.count("words") == 40


@pytest.fixture
def foreign(tmp_path: Path, tiny_state_dict) -> Path:
    """A model whose file, folder and layers have names that cp1252 lacks."""
    folder = tmp_path / "my models λ"
    folder.mkdir()
    path = folder / "модель 1.pt"
    torch.save({f"слой.{name}": tensor for name, tensor in tiny_state_dict.items()}, path)
    return path


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_names_that_an_encoding_lacks_are_escaped(encoding: str, foreign: Path) -> None:
    result = piped("inspect", foreign, PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert result.returncode == 0, result.stderr.decode(encoding)
    name = "слой.lstm.weight_hh_l0".encode(encoding, "backslashreplace")
    assert name in result.stdout
    assert str(foreign.name).encode(encoding, "backslashreplace") in result.stdout
    assert b"Traceback" not in result.stderr


def test_files_are_in_utf8_whatever_the_console_is(foreign: Path) -> None:
    """An artifact, a card, a page and a report, in a folder with spaces, on a Western console."""
    western = {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    made = foreign.with_name("сжатая.safetensors")
    how = ("--factor", "2", "--format", "mps", "--store", "int8", "-o", made)
    done = piped("decompose", foreign, *how, **western)
    assert done.returncode == 0, done.stderr.decode("cp1252")
    for command in (("card",), ("report", "--as", "markdown")):
        page = foreign.with_name(f"{command[0]}.md")
        result = piped(command[0], made, *command[1:], "-o", page, **western)
        assert result.returncode == 0, result.stderr.decode("cp1252")
        assert "слой.lstm.weight" in page.read_text(encoding="utf-8")
    shown = piped("report", made, "--as", "markdown", **western)
    assert shown.returncode == 0 and rb"\u0441\u043b\u043e\u0439" in shown.stdout
    absent = piped("inspect", foreign.with_name("нет.pt"), **western)
    assert absent.returncode == 2 and b"no such file" in absent.stderr


def test_completion_is_typers_own() -> None:
    """It asks the program itself, so it knows every command and option."""
    shown = piped("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert b"_TTCOMPRESS_COMPLETE=complete_bash" in shown.stdout
    asked = {
        "_TTCOMPRESS_COMPLETE": "complete_bash",
        "COMP_WORDS": "ttcompress pu",
        "COMP_CWORD": "1",
    }
    assert piped(**asked).stdout.split() == [b"push"]
