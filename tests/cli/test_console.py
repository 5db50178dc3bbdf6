"""Progress is drawn on a terminal, after a while, and nowhere else."""

from __future__ import annotations

import io
import json
import time

import pytest
from rich.console import Console

from ttcompress.cli import console
from ttcompress.cli.arguments import Talk
from ttcompress.cli.engine import EngineOptions
from ttcompress.errors import TaskError, TTCompressError
from ttcompress.reporting.table import Column, Table
from ttcompress.system.progress import silent
from ttcompress.training.loop import StepReport


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    text = io.StringIO()
    monkeypatch.setattr(
        console, "stderr", lambda: Console(file=text, force_terminal=True, width=100)
    )
    return text


def work(talk: Talk) -> None:
    with console.progress(talk) as progress:
        for done in range(3):
            progress("decompose", done, 3, f"weight {done}")
            time.sleep(0.1)
        progress("decompose", 3, 3)


def test_long_work_shows_bars_on_a_terminal(terminal, monkeypatch) -> None:
    monkeypatch.setattr(console, "PATIENCE", 0.01)
    work(Talk())
    assert "decomposing" in terminal.getvalue()
    assert "weight 1" in terminal.getvalue()


@pytest.mark.parametrize(("talk", "patience"), [(Talk(), 60.0), (Talk(quiet=True), 0.01)])
def test_short_work_and_quiet_work_show_none(talk, patience, terminal, monkeypatch) -> None:
    monkeypatch.setattr(console, "PATIENCE", patience)
    work(talk)
    assert "decomposing" not in terminal.getvalue()


def test_without_a_terminal_a_line_is_printed_now_and_then(capsys, monkeypatch) -> None:
    with console.progress(Talk()) as progress:
        progress("decompose", 0, 3, "weight 0")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(console, "LINE_EVERY", 0.0)
    with console.progress(Talk()) as progress:
        progress("decompose", 0, 3, "weight 0")
        progress("decompose", 3, 3)
    assert capsys.readouterr().err == "decomposing: 0 of 3, weight 0\ndecomposing: 3 of 3\n"
    with console.progress(Talk(quiet=True)) as progress:
        assert progress is silent


def test_without_a_terminal_a_training_tells_its_steps_and_its_epochs(capsys, monkeypatch) -> None:
    for every, lines in ((0.0, 3), (60.0, 1)):
        monkeypatch.setattr(console, "LINE_EVERY", every)
        with console.progress(Talk()) as progress:
            watch = console.watching(progress, Talk())
            watch(StepReport(3, 8, 0, 1.5, 2.0))
            watch(StepReport(4, 8, 0, 1.25, 2.0, {"perplexity": 9.5}))
        shown = capsys.readouterr().err.splitlines()
        assert len(shown) == lines
        assert shown[-1] == "step 4 of 8: loss 1.250, perplexity 9.5"
        assert every or shown[0] == "fine-tuning: 3 of 8, loss 1.500, 2 steps/s, 2 s left"
    with console.progress(Talk(quiet=True)) as progress:
        console.watching(progress, Talk(quiet=True))(StepReport(4, 8, 0, 1.2, 2.0, {"x": 1.0}))
    assert capsys.readouterr().err == ""


def test_an_error_within_passes_through(terminal) -> None:
    with pytest.raises(KeyError), console.progress(Talk()):
        raise KeyError("lost")


COMMANDS = "\x1b]0;owned\x07a\x9bb\rc\ud800d\te\r\n"


def test_no_name_out_of_a_file_commands_the_terminal(terminal, capsys) -> None:
    table = Table((Column(COMMANDS),), ((COMMANDS,),))
    console.show(COMMANDS, [table], [COMMANDS])
    console.text(COMMANDS)
    console.say(COMMANDS, Talk())
    console.fail(TTCompressError(COMMANDS), verbose=False)
    written, told = capsys.readouterr().out, terminal.getvalue()
    assert written.count("?]0;owned?a?b?c?d") == 5
    assert "owned?a?b?c?d" in told and "\x1b]" not in told  # Rich's own colours are there
    assert not set("\x07\x9b\ud800") & set(written + told)
    assert "\x1b" not in written


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_json_is_written_whatever_a_name_is(encoding: str, monkeypatch) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr("sys.stdout", out)
    content = {"file": "mod\udcff.pt", "é": "\x1b"}
    console.document(content)
    out.flush()
    assert json.loads(out.buffer.getvalue()) == content


WIDE = Table(
    (
        Column("weight", name=True),
        Column("params before", right=True, spare=2),
        Column("modes", name=True, spare=1),
        Column("error", right=True),
    ),
    (("lstm.weight_hh_l0", "1,048,576", "1024 x 256", "0.1234"),),
)


def drawn(table: Table, width: int, encoding: str = "utf-8") -> list[str]:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console.show("", [table], file=file, width=width)
    file.seek(0)
    return [line.rstrip() for line in file.read().splitlines() if line]


@pytest.mark.parametrize(
    ("width", "cells", "left_out"),
    [
        (100, ["lstm.weight_hh_l0", "1,048,576", "1024 x 256", "0.1234"], None),
        (45, ["lstm.weight_hh_l0", "1,048,576", "1024 x 256", "0.1234"], None),
        (44, ["lstm.weight_hh_l0", "1024 x 256", "0.1234"], "params before"),
        (34, ["lstm.weight_hh_l0", "0.1234"], "params before, modes"),
    ],
)
def test_a_narrow_terminal_loses_what_is_spare_and_is_told(width, cells, left_out) -> None:
    lines = drawn(WIDE, width)
    assert all(len(line) <= width for line in lines)
    row = next(line for line in lines if line.startswith("lstm"))
    assert " ".join(row.split()) == " ".join(cells)
    told = " ".join(lines).split("not shown at this width: ")[1:]
    assert told == ([left_out] if left_out else [])


def test_where_nothing_is_spare_all_is_folded() -> None:
    lines = drawn(WIDE, 12)
    assert all(len(line) <= 12 for line in lines)
    assert "".join(line.split()[0] for line in lines if "l" in line).count("lstm") == 1


@pytest.mark.parametrize(
    ("encoding", "shown"), [("utf-8", "█▄▁ ━━╸"), ("ascii", "841 ==-"), ("latin-1", "841 ==-")]
)
def test_blocks_are_plain_characters_where_they_cannot_be_shown(encoding, shown) -> None:
    table = Table((Column("spectrum"), Column("lost")), (("█▄▁", "━━╸"),))
    assert drawn(table, 80, encoding)[-1].split() == shown.split()


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


def test_a_batch_has_lines_alone_where_stderr_is_no_terminal(capsys, monkeypatch) -> None:
    monkeypatch.setattr(console, "LINE_EVERY", 0.0)
    with console.jobs_progress(Talk()) as (progress, say):
        progress("a under small", 3, 9, "finetune")
        say("[a] under small: done")
    with console.jobs_progress(Talk(quiet=True)) as (progress, say):
        say("nothing")
        assert progress is silent
    lines = ["a under small: 3 of 9, fine-tuning", "[a] under small: done"]
    assert capsys.readouterr().err.splitlines() == lines


@pytest.mark.parametrize("verbose", [True, False])
def test_the_way_to_an_exception_in_a_users_task_is_shown_if_asked_for(verbose, capsys) -> None:
    try:
        raise TaskError("task own: own.py:3: ValueError.") from ValueError("of a task")
    except TaskError as error:
        console.fail(error, verbose)
    shown = capsys.readouterr().err
    assert shown.endswith("-v prints the traceback.\n") is not verbose
    assert ("ValueError: of a task" in shown) is verbose


def test_more_threads_than_cores_are_told(run, tiny_checkpoint, monkeypatch) -> None:
    assert "threads" not in run("inspect", tiny_checkpoint).err
    monkeypatch.setenv("OMP_NUM_THREADS", "4000")
    assert "OMP_NUM_THREADS asks for 4,000 threads" in run("inspect", tiny_checkpoint).err
    assert run("inspect", tiny_checkpoint, "-q").err == ""


def test_more_jobs_than_cores_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    EngineOptions(jobs=1).chosen(Talk())
    assert capsys.readouterr().err == ""
    EngineOptions(jobs=4000).chosen(Talk())
    assert "-j 4000 asks for 4,000 threads" in capsys.readouterr().err
    EngineOptions(jobs=4000, engine="dask", scheduler="tcp://far:8786").chosen(Talk())
    assert capsys.readouterr().err == ""  # its cores are not ours
