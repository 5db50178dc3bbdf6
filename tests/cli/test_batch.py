"""`batch` on the command line: what it prints and writes, and every exit code."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import pytest

RECIPE = "{version: 1, budget: {factor: 2}, store: int8}"


def manifest(folder: Path, limits: str = "min_factor: 2") -> str:
    (folder / "half.yaml").write_text(RECIPE)
    (folder / "models.yaml").write_text(
        f"version: 1\noutput: out\nlimits: {{{limits}}}\n"
        f"matrix: {{models: [a.pt, b.pt], recipes: [half.yaml]}}\n"
    )
    return "models.yaml"


@pytest.fixture
def models(folder: Path, tiny_checkpoint: Path) -> None:
    for name in ("a.pt", "b.pt"):
        shutil.copy(tiny_checkpoint, folder / name)


def test_what_is_printed_and_written(run, folder, models) -> None:
    files = ("--junit", "junit.xml", "--markdown", "summary.md", "--html", "page.html")
    first = run("batch", manifest(folder), "-j", "2", *files)
    assert first.code == 0
    assert sorted(line.partition(",")[0] for line in first.err.splitlines()) == [
        "a under half: done",
        "b under half: done",
    ]
    title, headings, row, _, remark = [line for line in first.out.splitlines() if line.strip()]
    assert title == "models.yaml"
    assert headings.split()[:4] == ["model", "recipe", "bytes", "before"]
    assert row.split()[:2] == ["a", "half"]
    assert remark.startswith("2 jobs in ")
    assert ElementTree.parse("junit.xml").getroot().find("testsuite").get("tests") == "2"
    assert "| a | half |" in (folder / "summary.md").read_text()
    page = (folder / "page.html").read_text(encoding="utf-8")
    assert page.count("<article") == 2 and "a.half.safetensors" in page
    again = run("batch", "models.yaml", "--json", *files)
    assert (again.code, again.err) == (0, "")
    assert [job["cached"] for job in again.json["jobs"]] == [True, True]


def test_broken_limits_exit_4_and_failed_jobs_5(run, folder, models) -> None:
    broken = run("batch", manifest(folder, limits="min_factor: 99"), "--json")
    assert (broken.code, broken.json["exit_code"]) == (4, 4)
    assert broken.json["jobs"][0]["status"] == "limit broken"
    (folder / "b.pt").write_bytes(b"no checkpoint")
    (folder / "half.yaml").write_text(RECIPE.replace("2", "3"))
    failed = run("batch", "models.yaml", "--json", "-q")
    assert (failed.code, failed.json["exit_code"], failed.err) == (5, 5, "")
    assert [job["status"] for job in failed.json["jobs"]] == ["limit broken", "failed"]


def test_worse_than_the_baseline_exits_4(run, folder, models) -> None:
    before = run("batch", manifest(folder), "--json").json
    before["jobs"][0]["bytes_after"] //= 2
    (folder / "before.json").write_text(json.dumps(before))
    result = run("batch", "models.yaml", "--baseline", "before.json")
    assert result.code == 4
    assert "a under half: limit baseline_size " in result.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.yaml"], "absent.yaml: there is no such manifest file."),
        (
            ["models.yaml", "--scheduler", "tcp://x:1"],
            "--scheduler only applies to Dask; add --engine dask.",
        ),
        (["models.yaml", "--engine", "spark"], "expected loky or dask, got 'spark'"),
        (["models.yaml", "-j", "0"], "Invalid value for '--jobs' / '-j'"),
        (["models.yaml", "--baseline", "absent.json"], "there is no such baseline"),
        (["models.yaml", "--junit", "no/junit.xml"], "the folder no does not exist"),
        (["models.yaml", "--markdown", "."], "is a folder"),
    ],
)
def test_usage_and_manifests_exit_2(arguments, message, run, folder, models) -> None:
    manifest(folder)
    result = run("batch", *arguments)
    assert (result.code, result.out) == (2, "")
    assert message in " ".join(result.err.replace("│", " ").split())
    assert not (folder / "out").exists()


@pytest.mark.slow
def test_interrupted_exits_130_and_goes_on(run, folder, models) -> None:
    """Ctrl-C reaches every process of the terminal's group."""
    (folder / "slow.py").write_text("import time\ndef Slow(structure):\n    time.sleep(60)\n")
    (folder / "models.yaml").write_text(
        "version: 1\njobs:\n  - {path: a.pt, recipe: balanced}\n"
        "  - {path: a.pt, recipe: tiny, task: 'slow.py:Slow'}\n"
    )
    command = [sys.executable, "-m", "ttcompress", "batch", "-j", "1", "models.yaml"]
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a background shell ignores it
    batch = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=heard
    )
    with batch:
        while not Path("a.balanced.safetensors").exists() and batch.poll() is None:
            time.sleep(0.1)
        time.sleep(1)
        os.killpg(batch.pid, signal.SIGINT)
        talk = batch.communicate(timeout=30)[1]
    assert batch.returncode == 130
    assert "Traceback" not in talk
    (folder / "models.yaml").write_text("version: 1\njobs: [{path: a.pt, recipe: balanced}]\n")
    assert run("batch", "models.yaml", "--json").json["jobs"][0]["cached"] is True
