"""Every example of `--help` runs, as it is printed there, on a small model of the same name."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import typer
from torch import nn
from typer.testing import CliRunner

import ttcompress
from ttcompress.cli import app
from ttcompress.samples import corpus

SAMPLE = Path(__file__).parents[2] / "sample_models" / "charlm.pt"
SLOW = {"compare", "sweep", "batch", "bench", "export", "evaluate", "finetune", "decompose", ""}
NEEDS = {"bench": "onnxruntime", "export": "onnxruntime", "report": "matplotlib"}
NEEDS |= {"push": "huggingface_hub"}
HIDDEN = 64


def every_command(group: object = None, way: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of each command, of each group, and of the program itself: ()."""
    group = group or typer.main.get_command(app)
    yield way
    for name, command in getattr(group, "commands", {}).items():
        yield from every_command(command, (*way, name))


def examples(way: tuple[str, ...]) -> list[str]:
    text = CliRunner().invoke(app, [*way, "--help"]).stdout
    _, found, rest = text.partition("Example:\n")
    lines = rest.split("\n\n")[0].splitlines() if found else []
    return [line.strip() for line in lines]


COMMANDS = [*every_command()]
GROUPS = [("recipes",), ("tasks",)]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What examples read: small files under the names that they use."""
    folder = tmp_path_factory.mktemp("inputs")
    vocabulary = torch.load(SAMPLE)["vocab"]
    torch.manual_seed(0)
    parts = {
        "embedding": nn.Embedding(len(vocabulary), 8),
        "lstm": nn.LSTM(8, HIDDEN),
        "head": nn.Linear(HIDDEN, len(vocabulary)),
    }
    state = {f"{name}.{key}": t for name, m in parts.items() for key, t in m.state_dict().items()}
    torch.save({"state_dict": state, "vocab": vocabulary}, folder / "charlm.pt")
    recipe = "version: 1\nbudget: {factor: 4}\nformat: mps\n"
    (folder / "mine.yaml").write_text(recipe)
    (folder / "models.yaml").write_text(
        "version: 1\nmatrix: {models: [charlm.pt], recipes: [mine.yaml]}\n"
    )
    small = ttcompress.compress(folder / "charlm.pt", folder / "mine.yaml")
    for name in ("charlm.auto", "small"):
        small.save(folder / f"{name}.safetensors")
    return folder


def read_by(arguments: list[str], inputs: Path) -> set[str]:
    """The files that a command names and does not write."""
    written = {arguments[k + 1] for k, word in enumerate(arguments) if word == "-o"}
    named = {word for word in arguments if (inputs / word).is_file()} - written
    return named | ({"charlm.pt", "mine.yaml"} if "models.yaml" in named else set())


@pytest.mark.parametrize(
    "way",
    [
        pytest.param(way, marks=pytest.mark.slow if "".join(way[:1]) in SLOW else ())
        for way in COMMANDS
        if way not in GROUPS
    ],
    ids=lambda way: " ".join(way) or "ttcompress",
)
def test_the_example_runs(way, run, folder, inputs, hub, monkeypatch) -> None:
    if needed := NEEDS.get("".join(way[:1])):
        pytest.importorskip(needed)
    text = (" ".join(corpus.documents("test").__next__().split()) + "\n") * 4
    monkeypatch.setattr(corpus, "load", lambda split: text)  # 2 MB, of which this is enough
    lines = examples(way)
    assert lines, f"ttcompress {' '.join(way)} --help has no example"
    for line in lines:
        program, *arguments = shlex.split(line, comments=True)
        assert program == "ttcompress"
        assert not way or tuple(arguments[: len(way)]) == way or line != lines[0]
        output = None
        if ">" in arguments:
            *arguments, _, output = arguments
        for name in read_by(arguments, inputs):
            if not (folder / name).exists():
                shutil.copy(inputs / name, folder)
        result = run(*arguments)
        assert result.code == 0, f"{line}: {result.err}"
        if output:
            (folder / output).write_text(result.out, encoding="utf-8")


def test_help_fits_80_columns_but_for_examples(monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for way in COMMANDS:
        text = CliRunner().invoke(app, [*way, "--help"]).stdout
        kept = {line for line in text.splitlines() if line.strip().startswith("ttcompress ")}
        assert max(len(line) for line in {*text.splitlines()} - kept) <= 80, way
        if not way or way in GROUPS:
            described = text.partition("\n")[2].splitlines()  # all but the usage
            assert not [line for line in described if line.endswith("...")], way
