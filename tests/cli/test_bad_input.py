"""Every bad input: a message with place, fact and cure; the exit code; no output, no traceback."""

from __future__ import annotations

import errno
import os
import pickle
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

GOOD = "model.pt"
"""Where each row finds a good checkpoint in its folder."""


def saved(name: str, content: object) -> str:
    torch.save(content, name)
    return name


def written(name: str, content: str | bytes) -> str:
    Path(name).write_bytes(content.encode() if isinstance(content, str) else content)
    return name


def truncated(name: str) -> str:
    content = Path(GOOD).read_bytes()
    return written(name, content[: len(content) // 2])


def with_value(value: float) -> dict[str, torch.Tensor]:
    weights = torch.load(GOOD)
    weights["lstm.weight_hh_l0"] = weights["lstm.weight_hh_l0"].clone()
    weights["lstm.weight_hh_l0"][3, 2] = value
    return weights


class Hostile:
    """Unpickled the usual way, it would leave a file behind."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return (os.mkdir, ("owned",))


def two_models() -> dict[str, dict[str, torch.Tensor]]:
    return {name: {"weight": torch.randn(8, 6)} for name in ("generator", "critic")}


def recipe(text: str) -> list[str]:
    return ["decompose", GOOD, "-r", written("mine.yaml", "version: 1\n" + text)]


RULE = "budget: {{factor: 2}}\nrules:\n  - {{weights: {weights}, {rest}}}\ndefault: keep\n"


@dataclass(frozen=True)
class Bad:
    """One row: how to make the bad input, the exit code, and what the message must say."""

    name: str
    command: Callable[[], list[str]]
    code: int
    place: str
    fact: str
    cure: str


TABLE = (
    Bad(
        "missing file",
        lambda: ["decompose", "absent.pt"],
        2,
        "absent.pt",
        "no such file",
        "Check the path",
    ),
    Bad(
        "directory",
        lambda: [Path("models").mkdir(), "decompose", "models"][1:],
        2,
        "models",
        "is a folder",
        "Give a checkpoint file",
    ),
    Bad(
        "empty file",
        lambda: ["decompose", written("empty.pt", "")],
        3,
        "empty.pt",
        "is empty (0 bytes)",
        "download the file again",
    ),
    Bad(
        "truncated file",
        lambda: ["decompose", truncated("half.pt")],
        3,
        "half.pt",
        "a damaged or truncated zip archive",
        "download the file again",
    ),
    Bad(
        "text file",
        lambda: ["decompose", written("notes.pt", "dear diary\n" * 50)],
        3,
        "notes.pt",
        "text",
        "Give",
    ),
    Bad(
        "unknown container",
        lambda: ["decompose", written("noise.pt", bytes(range(7, 207)) * 9)],
        3,
        "noise.pt",
        "is not a known kind of file",
        "Give a file written by torch.save",
    ),
    Bad(
        "no named 2-D tensors",
        lambda: ["decompose", saved("flat.pt", {"bias": torch.ones(4)})],
        3,
        "flat.pt",
        "no named 2-D tensor",
        "Give the file",
    ),
    Bad(
        "no recurrent weight",
        lambda: [
            "decompose",
            saved("linear.pt", {"head.weight": torch.randn(30, 20), "head.bias": torch.ones(30)}),
        ],
        2,
        "head.weight (linear, 30 x 20)",
        "no weight to decompose",
        "`- weights: linear`",
    ),
    Bad(
        "NaN",
        lambda: ["decompose", saved("nan.pt", with_value(float("nan")))],
        3,
        "lstm.weight_hh_l0",
        "1 of 256 values are NaN or infinite",
        "keep this weight with a rule",
    ),
    Bad(
        "infinity",
        lambda: ["decompose", saved("inf.pt", with_value(float("-inf")))],
        3,
        "lstm.weight_hh_l0",
        "1 of 256 values are NaN or infinite",
        "train it again",
    ),
    Bad(
        "two state dicts",
        lambda: ["decompose", saved("gan.pt", two_models())],
        3,
        "gan.pt",
        "holds 2 state dicts: `generator`",
        "--key generator",
    ),
    Bad(
        "wrong modes",
        lambda: recipe(
            RULE.format(weights="lstm.weight_hh_l0", rest="row_modes: [4, 4], column_modes: [2, 4]")
        ),
        2,
        "lstm.weight_hh_l0",
        "make a 16 x 8 matrix, but the weight is 32 x 8",
        "must multiply to 32",
    ),
    Bad(
        "unknown key",
        lambda: recipe("bugdet: {factor: 2}"),
        2,
        "mine.yaml",
        "bugdet (line 2): unknown key",
        "Did you mean `budget`?",
    ),
    Bad(
        "duplicate key",
        lambda: recipe("seed: 1\nseed: 2\nbudget: {factor: 2}"),
        2,
        "mine.yaml: 1 problem\n  seed (line 3)",
        "written twice; the first is on line 2",
        "Keep one",
    ),
    Bad(
        "dead rule",
        lambda: recipe(RULE.format(weights="encoder.*", rest="format: mps")),
        2,
        "rules[0] (`encoder.*`)",
        "matches no weight",
        "weights are: embedding.weight",
    ),
    Bad(
        "1e-3 as text",
        lambda: recipe("budget: {tolerance: 1e-3}"),
        2,
        "budget.tolerance (line 2)",
        "the text '1e-3'",
        "write 1.0e-3",
    ),
    Bad(
        "unreachable budget",
        lambda: ["decompose", GOOD, "--factor", "5000"],
        2,
        "factor 5000 is out of reach",
        "even with the smallest ranks and stores the factor is",
        "Ask for less",
    ),
    Bad(
        "unreachable size",
        lambda: ["decompose", GOOD, "--size", "300"],
        2,
        "size 300 is out of reach",
        "even with the smallest ranks and stores the file takes",
        "Ask for less",
    ),
    Bad(
        "wrong option",
        lambda: ["decompose", GOOD, "--store", "int9"],
        2,
        "--store",
        "got the text 'int9'",
        "Did you mean `int8`?",
    ),
    Bad(
        "output exists",
        lambda: ["decompose", GOOD, "-o", written("taken.safetensors", "mine")],
        2,
        "taken.safetensors",
        "already exists",
        "--overwrite",
    ),
    Bad(
        "output folder missing",
        lambda: ["decompose", GOOD, "-o", "runs/out.safetensors"],
        2,
        "runs/out.safetensors",
        "the folder runs does not exist",
        "Create it first",
    ),
    Bad(
        "output is the model",
        lambda: ["decompose", GOOD, "-o", GOOD, "--overwrite"],
        2,
        GOOD,
        "is the model itself",
        "another output with -o",
    ),
    Bad(
        "unknown recipe",
        lambda: ["decompose", GOOD, "-r", "balance"],
        2,
        "balance",
        "neither a recipe file nor a shipped recipe",
        "Did you mean `balanced`?",
    ),
    Bad(
        "a model where an artifact is needed",
        lambda: ["report", GOOD],
        3,
        GOOD,
        "is not a readable safetensors file",
        "ttcompress decompose",
    ),
    Bad(
        "no artifact in the folder",
        lambda: ["report"],
        2,
        "",
        "there is no compressed model in this folder",
        "Name a FILE",
    ),
    Bad(
        "a report in a folder that is not there",
        lambda: ["report", GOOD, "--as", "html", "-o", "reports/model.html"],
        2,
        "reports/model.html",
        "the folder reports does not exist",
        "Create it first",
    ),
)


@pytest.fixture(autouse=True)
def good(folder: Path, tiny_checkpoint: Path) -> None:
    (folder / GOOD).write_bytes(tiny_checkpoint.read_bytes())


@pytest.mark.parametrize("bad", TABLE, ids=lambda bad: bad.name)
def test_a_bad_input_is_refused_in_three_movements(bad: Bad, run, folder: Path) -> None:
    command = bad.command()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    result = run(*command)
    assert result.code == bad.code, result.err
    assert result.out == ""
    assert result.err.startswith("error: ")
    assert "Traceback" not in result.err
    for movement in (bad.place, bad.fact, bad.cure):
        assert movement in result.err
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_all_problems_of_a_recipe_are_shown_at_once(run) -> None:
    result = run(*recipe("bugdet: {factor: 2}\nsede: 1"))
    assert "2 problems" in result.err or "3 problems" in result.err
    assert "`budget`" in result.err
    assert "`seed`" in result.err


@pytest.mark.parametrize("save", [torch.save, lambda c, p: Path(p).write_bytes(pickle.dumps(c))])
def test_a_hostile_class_never_runs(save, run, folder: Path) -> None:
    save({"weight": torch.randn(8, 6), "extra": Hostile()}, "hostile.pt")
    result = run("decompose", "hostile.pt", "--factor", "2")
    assert result.code == 3
    assert "hostile.pt" in result.err
    assert not (folder / "owned").exists()
    assert not list(folder.glob("*.safetensors"))


def test_a_full_disk_leaves_nothing_behind(run, folder: Path, monkeypatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    result = run("decompose", GOOD, "--factor", "2")
    assert (result.code, result.out) == (1, "")
    assert "model.auto.safetensors: the disk is full; nothing was written." in result.err
    assert sorted(path.name for path in folder.iterdir()) == [GOOD]


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("command", ["decompose", "restore"])
def test_a_write_cut_short_leaves_nothing_behind(
    command: str, run, folder: Path, tiny_artifact: Path
) -> None:
    source = GOOD if command == "decompose" else tiny_artifact
    with files_of_at_most(1500):
        result = run(command, source, "-o", "out", *(["--factor", "2"] * (command == "decompose")))
    assert result.code == 1
    assert result.err.startswith("error: out: cannot be written")
    assert sorted(path.name for path in folder.iterdir()) == [GOOD]


def test_verbose_shows_where_an_error_came_from(run) -> None:
    result = run("decompose", written("empty.pt", ""), "-v")
    assert result.code == 3
    assert "Traceback" in result.err
    assert result.err.rstrip().splitlines()[-1].startswith("error: empty.pt")


@pytest.mark.parametrize("option", [["--control"], ["--resume"], ["--device", "cpu"]])
def test_options_of_a_training_are_refused_where_nothing_is_trained(
    run, tiny_checkpoint: Path, option: list[str]
) -> None:
    found = run("decompose", tiny_checkpoint, *option)
    assert found.code == 2
    assert f"{option[0]} only applies to fine-tuning" in found.err


def test_a_limit_that_cannot_be_judged_is_refused_before_the_work(
    run, tiny_checkpoint: Path, folder: Path
) -> None:
    found = run("decompose", tiny_checkpoint, "--max-drop", "1%")
    assert found.code == 2
    said = " ".join(found.err.split())
    assert "limits.max_drop: a drop of 1% can only be judged with a task. Add --task." in said
    assert "spectra" not in found.err and not list(folder.glob("*.safetensors"))


@pytest.mark.parametrize(
    "command",
    [
        "inspect {}",
        "plan {}",
        "decompose {}",
        "decompose good.pt -r {}",
        "decompose good.pt -o {}",
        "decompose good.pt --task {}.py:Name",
        "report {}",
        "restore {} -o x.pt",
        "verify {} --against good.pt",
        "evaluate {} --task charlm",
        "batch {}",
    ],
)
def test_a_name_that_no_file_can_have_is_refused(
    command: str, run, tiny_checkpoint: Path, folder: Path
) -> None:
    shutil.copy(tiny_checkpoint, folder / "good.pt")
    result = run(*command.format("A" * 300).split())
    assert result.code in (1, 2)
    assert result.err.startswith("error: ")
