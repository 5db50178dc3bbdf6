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


def test_a_batch_shows_a_bar_for_each_running_job_and_lines_above(terminal) -> None:
    with console.jobs_progress(Talk()) as (progress, say):
        progress("batch", 0, 2)
        progress("a under small", 3, 6, "decompose")
        time.sleep(0.3)
        shown = terminal.getvalue()
        say("a under small: done")
        progress("a under small", 1, 1)
        seen = len(terminal.getvalue())
        time.sleep(0.3)
        later = terminal.getvalue()[seen:]
    assert "a under small" in shown
    assert "decomposing" in shown
    assert "a under small: done" in terminal.getvalue()
    assert "decomposing" not in later.rpartition("batch")[2]


def test_a_batch_has_lines_alone_where_stderr_is_no_terminal(capsys) -> None:
    with console.jobs_progress(Talk()) as (progress, say):
        say("[a] under small: done")
        assert progress is silent
    with console.jobs_progress(Talk(quiet=True)) as (progress, say):
        say("nothing")
    assert capsys.readouterr().err == "[a] under small: done\n"
