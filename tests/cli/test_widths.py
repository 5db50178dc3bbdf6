"""Tables in a terminal of 80 columns: every weight on one line, its name in one piece."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

SAMPLES = Path(__file__).parents[2] / "sample_models"
NAMES = {
    "charlm": [f"lstm.weight_{kind}_l{layer}" for layer in (0, 1) for kind in ("ih", "hh")],
    "highlighter": [
        f"lstm.weight_{kind}_l{layer}{direction}"
        for layer in (0, 1)
        for direction in ("", "_reverse")
        for kind in ("ih", "hh")
    ],
}


def lines_of(text: str, names: list[str]) -> Iterator[str]:
    for line in text.splitlines():
        if line.split() and line.split()[0] in names:
            yield line.rstrip()


@pytest.mark.parametrize("sample", NAMES)
@pytest.mark.parametrize(
    ("command", "most_left_out"),
    [
        (["inspect"], {"falls to"}),
        (["plan", "--format", "mps"], {"params before"}),
        (["plan", "--format", "mpo"], {"params before", "params after"}),
        (["recipes", "check", "balanced"], {"role", "shape"}),
    ],
    ids=["inspect", "plan mps", "plan mpo", "recipes check"],
)
def test_80_columns_are_enough(run, monkeypatch, sample, command, most_left_out) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = run(*command, SAMPLES / f"{sample}.pt").out
    lines = list(lines_of(text, NAMES[sample]))
    assert [line.split()[0] for line in lines] == NAMES[sample]
    assert max(map(len, lines)) <= 80
    told = [line for line in text.splitlines() if line.startswith("not shown at this width: ")]
    left_out = set(told[0].partition(": ")[2].split(", ")) if told else set()
    assert left_out <= most_left_out


def test_a_pipe_gets_every_column(run, monkeypatch, tiny_artifact) -> None:
    monkeypatch.delenv("COLUMNS")
    text = run("report", tiny_artifact).out
    assert "params before  params after  bytes after" in text
    assert "not shown" not in text
    assert "\x1b" not in text
