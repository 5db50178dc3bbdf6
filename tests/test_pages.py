"""Every block of the README is run: shell sessions against their output, Python for its effects."""

import os
import re
import shlex
import shutil
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

import ttcompress
from ttcompress.cli import app
from ttcompress.recipe.manifest import Manifest
from ttcompress.workflows.manifest import read_manifest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DEPLOY = re.search(r"^## Deploy\n.*?(?=^## )", README, re.MULTILINE | re.DOTALL)[0]
"""Needs the extra `onnx`; the rest does not."""
REST = README.replace(DEPLOY, "")


def blocks(language: str, text: str = REST) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder in which all blocks run in their order, as a reader would run them."""
    path = tmp_path_factory.mktemp("readme")
    shutil.copytree(ROOT / "sample_models", path / "sample_models")
    return path


def skeleton(text: str) -> list[str]:
    """A session's output without what another machine may say differently: figures and widths."""
    plain = re.sub(r"\d[\d,.]*(e-\d+)?", "0", text)
    return [" ".join(line.split()) for line in plain.splitlines() if line.strip()]


def session(text: str) -> list[tuple[list[str], str]]:
    """The commands of a console block, each with the output below it."""
    parts = re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]
    return [(shlex.split(line), shown) for line, _, shown in (p.partition("\n") for p in parts)]


def test_console_blocks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "120")
    sessions = [step for block in blocks("console") for step in session(block)]
    assert len(sessions) >= 5
    replay(sessions)


def replay(sessions: list[tuple[list[str], str]]) -> None:
    for (program, *arguments), shown in sessions:
        assert program == "ttcompress"
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, f"{arguments}: {result.output}"
        if shown.strip():
            assert skeleton(shown) == skeleton(result.stdout), arguments


def test_python_blocks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    found = blocks("python")
    scope: dict[str, object] = {}
    for block in found:
        exec(compile(block, "README.md", "exec"), scope)
    model = ttcompress.load("charlm.mps.safetensors")
    name = scope["entry"]["weight"]["name"]  # type: ignore[index]
    ours = model.state_dict()[name].numpy()
    np.testing.assert_allclose(scope["matrix"], ours, atol=1e-6)
    assert isinstance(scope["state_dict"][name], torch.Tensor)  # type: ignore[index]


def test_the_blocks_of_deploy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file that the session exports is the one that Python streams through."""
    pytest.importorskip("onnxruntime", reason="the README's section Deploy needs the extra onnx")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "120")
    sessions = [step for block in blocks("console", DEPLOY) for step in session(block)]
    assert [arguments[1] for arguments, _ in sessions] == ["decompose", "export"]
    replay(sessions)
    (streaming,) = blocks("python", DEPLOY)
    scope: dict[str, object] = {}
    exec(compile(streaming, "README.md", "exec"), scope)
    assert len(scope["streamed"]) == 40  # type: ignore[arg-type]


def test_every_command_and_exit_code_is_in_the_readme() -> None:
    commands = {command.name or command.callback.__name__ for command in app.registered_commands}
    groups = {group.name for group in app.registered_groups}
    for name in commands | groups:
        assert f"`{name}" in README, name
    codes = {error.exit_code for error in ttcompress.TTCompressError.__subclasses__()}
    for code in codes:
        assert f"| {code} |" in README


def test_the_manifest_has_every_key_and_is_read(tmp_path: Path) -> None:
    (block,) = blocks("yaml manifest")
    for name in ("models/a.pt", "models/large.pt", "other/tagger.pt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "mine.yaml").write_text("{version: 1, budget: {factor: 2}}")
    (tmp_path / "models.yaml").write_text(block)
    _, jobs = read_manifest(tmp_path / "models.yaml")
    assert len(jobs) == 3 * 3 - 1 + 1
    assert {field.name for field in fields(Manifest)} == yaml.safe_load(block).keys()


def test_the_example_is_both_samples_under_four_recipes() -> None:
    _, jobs = read_manifest(ROOT / "recipes" / "batch" / "samples.yaml")
    assert {job.model_name for job in jobs} == {"charlm", "highlighter"}
    assert len(jobs) == 8
    (command,) = re.findall(r"^\$ ttcompress batch (\S+)", README, re.MULTILINE)
    assert (ROOT / command).is_file()


def commands(script: list[str]) -> list[list[str]]:
    return [shlex.split(line) for line in script if line.startswith("ttcompress")]


def test_the_workflows_run_a_batch_with_options_that_exist() -> None:
    (github,) = map(yaml.safe_load, blocks("yaml github"))
    (gitlab,) = map(yaml.safe_load, blocks("yaml gitlab"))
    steps = github["jobs"]["compress"]["steps"]
    assert github[True] == ["push"]  # YAML 1.1 reads `on` so
    assert any(step.get("with", {}).get("cache") == "pip" for step in steps)
    assert ".cache/pip" in gitlab["compress"]["cache"]["paths"]
    assert gitlab["compress"]["artifacts"]["reports"]["junit"] == "junit.xml"
    for script in ([step.get("run", "") for step in steps], gitlab["compress"]["script"]):
        ((program, *arguments),) = commands(script)
        assert (program, arguments[:2]) == ("ttcompress", ["batch", "models.yaml"])
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 2
        assert "models.yaml: there is no such manifest file" in result.stderr


def test_yaml_blocks_are_recipes() -> None:
    for block in blocks("yaml"):
        assert ttcompress.parse_recipe(block, "README.md").budget.factor == 8


def test_the_set_up_commands_pin_torch() -> None:
    for command in blocks("sh")[:2]:
        assert "torch==2.13.0" in command
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
