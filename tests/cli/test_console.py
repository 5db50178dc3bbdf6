"""Progress is drawn on a terminal, after a while, and nowhere else."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from ttcompress.cli import console
from ttcompress.cli.options import Talk
from ttcompress.progress import silent


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    text = io.StringIO()
    monkeypatch.setattr(
        console, "_stderr", lambda: Console(file=text, force_terminal=True, width=100)
    )
    return text


def work(talk: Talk) -> None:
    with console.progress(talk) as progress:
        for done in range(3):
            progress("decompose", done, 3, f"weight {done}")
            time.sleep(0.1)
        progress("decompose", 3, 3)


def test_long_work_shows_bars_on_a_terminal(terminal, monkeypatch) -> None:
    monkeypatch.setattr(console, "_PATIENCE", 0.01)
    work(Talk())
    assert "decomposing" in terminal.getvalue()
    assert "weight 1" in terminal.getvalue()


@pytest.mark.parametrize(("talk", "patience"), [(Talk(), 60.0), (Talk(quiet=True), 0.01)])
def test_short_work_and_quiet_work_show_none(talk, patience, terminal, monkeypatch) -> None:
    monkeypatch.setattr(console, "_PATIENCE", patience)
    work(talk)
    assert "decomposing" not in terminal.getvalue()


def test_bars_are_silent_where_stderr_is_no_terminal() -> None:
    with console.progress(Talk()) as progress:
        assert progress is silent


def test_an_error_within_passes_through(terminal) -> None:
    with pytest.raises(KeyError), console.progress(Talk()):
        raise KeyError("lost")
