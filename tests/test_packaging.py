"""The GitHub Action and the Dockerfile: each option is one that exists, and the script works."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from ttcompress.cli import app

ROOT = Path(__file__).parents[1]
ACTION = ROOT / ".github" / "actions" / "compress" / "action.yml"
DOCKERFILE = ROOT / ".github" / "docker" / "Dockerfile"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def action() -> dict[str, Any]:
    return yaml.safe_load(ACTION.read_text(encoding="utf-8"))


def step(action: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = (one for one in action["runs"]["steps"] if one.get("name") == name)
    return found


def options_of(command: str) -> set[str]:
    group = typer.main.get_command(app)
    return {name for p in group.commands[command].params for name in (*p.opts, *p.secondary_opts)}


def find_tool(name: str) -> str:
    """A linter of the extra `dev`, beside this Python or on the path."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return shutil.which(name, path=places) or pytest.skip(f"{name} is not installed")


def test_every_option_of_the_action_exists(action) -> None:
    script = step(action, "Compress")["run"]
    used = {
        command: set(re.findall(r"(?<![\w-])--[a-z][\w-]*", line))
        for line in script.splitlines()
        for command in re.findall(r"^\s*ttcompress (\w+)", line)
    }
    assert used.keys() == {"decompose", "report"}
    built = set(re.findall(r"options\+?=\((--[\w-]+)", script))
    built |= set(re.findall(r"(?<![\w-])--[a-z][\w-]*", script.splitlines()[0]))
    assert len(built) >= 8
    assert built | used["decompose"] - {"--"} <= options_of("decompose")
    assert used["report"] <= options_of("report")


def test_every_input_reaches_the_script_and_never_as_text(action) -> None:
    """An input in `${{ }}` inside a script would be a command."""
    scripts = [one for one in action["runs"]["steps"] if "run" in one]
    assert not [one for one in scripts if "${{" in one["run"]]
    passed = str(
        [one.get("env") for one in scripts] + [one.get("with") for one in action["runs"]["steps"]]
    )
    for name in action["inputs"]:
        assert f"inputs.{name} }}}}" in passed, name
    for one in scripts:
        for variable in one["env"].keys() - {"PYTHONUTF8"}:
            assert f'"${variable}"' in one["run"] or f"${variable}" in one["run"], variable
        assert one["shell"] == "bash"


def test_what_the_action_gives_is_what_its_script_writes(action) -> None:
    script = step(action, "Compress")["run"]
    for name, found in action["outputs"].items():
        assert found["value"] == f"${{{{ steps.compress.outputs.{name} }}}}"
        assert re.search(rf'print\(f"{name}=', script)


def run_script(action, folder: Path, given: dict[str, str]) -> tuple[int, dict[str, str], str]:
    """Run the step as GitHub does, with its inputs; give its outputs and the job's summary."""
    here = step(action, "Compress")
    values = {name: one.get("default", "") for name, one in action["inputs"].items()} | given
    variables = {
        key: re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda found: values[found[1]], text)
        for key, text in here["env"].items()
    }
    program = folder / "bin"
    program.mkdir()
    (program / "ttcompress").write_text(
        f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m ttcompress "$@"\n', encoding="utf-8"
    )
    (program / "ttcompress").chmod(0o755)
    (program / "python").symlink_to(sys.executable)
    files = {name: folder / name for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    environment = os.environ | variables | {k: str(v) for k, v in files.items()}
    environment |= {
        "RUNNER_TEMP": str(folder),
        "PATH": f"{program}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    (folder / "script.sh").write_text(here["run"], encoding="utf-8")
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(folder / "script.sh")]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)
    read = {name: path.read_text("utf-8") if path.exists() else "" for name, path in files.items()}
    pairs = (line.split("=", 1) for line in read["GITHUB_OUTPUT"].splitlines())
    return done.returncode, dict(pairs), read["GITHUB_STEP_SUMMARY"]


@pytest.mark.slow
@pytest.mark.parametrize(("limit", "code"), [("", 0), ("900", 4)])
def test_the_action_compresses_and_reports(limit, code, action, tmp_path, tiny_checkpoint) -> None:
    shutil.copy(tiny_checkpoint, tmp_path / "my model.pt")
    (tmp_path / "r.yaml").write_text(
        "{version: 1, budget: {factor: 20}, format: mps, store: int8}", encoding="utf-8"
    )
    given = {"model": "my model.pt", "recipe": "r.yaml", "factor": "2", "min-factor": limit}
    found, outputs, summary = run_script(action, tmp_path, given)
    assert found == code
    assert outputs["file"] == "compressed.safetensors" and outputs["metric"] == ""
    assert 2 <= float(outputs["factor"]) < 20  # out of reach: the input replaces it
    assert (tmp_path / "compressed.safetensors").is_file()
    assert summary.startswith("# compressed.safetensors\n")
    assert ("BROKEN" in summary) is bool(limit)


@pytest.mark.slow
def test_the_action_fails_as_the_command_does(action, tmp_path) -> None:
    hostile = "$(touch owned); touch owned"
    code, outputs, summary = run_script(
        action, tmp_path, {"model": hostile, "task": "`touch owned`"}
    )
    assert (code, outputs, summary) == (2, {}, "")
    assert not (tmp_path / "owned").exists()


def test_the_action_installs_this_repository(action) -> None:
    script = step(action, "Install ttcompress")["run"]
    assert (ACTION.parent / "../../.." / "pyproject.toml").resolve() == ROOT / "pyproject.toml"
    (extras,) = re.findall(r'\$GITHUB_ACTION_PATH/\.\./\.\./\.\.\[([\w,]+)\]"', script)
    assert set(extras.split(",")) <= PROJECT["optional-dependencies"].keys()


def instructions() -> list[tuple[str, str]]:
    text = DOCKERFILE.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return [(first, rest) for first, _, rest in (line.partition(" ") for line in lines)]


def test_the_dockerfile_copies_what_exists_and_installs_extras_that_exist() -> None:
    for word, rest in instructions():
        if word == "COPY":
            assert all((ROOT / source).exists() for source in rest.split()[:-1]), rest
    found = " ".join(rest for word, rest in instructions() if word == "RUN")
    (extras,) = re.findall(r'"/source\[([\w,]+)\]"', found)
    assert set(extras.split(",")) <= PROJECT["optional-dependencies"].keys()
    copied = {rest.split()[-1] for word, rest in instructions() if word == "COPY"}
    for folder in ("ttcompress", "recipes"):  # what the wheel is made of
        assert f"/source/{folder}" in copied


def test_the_container_is_the_command_and_not_of_root() -> None:
    last = dict(instructions())
    assert last["ENTRYPOINT"] == '["ttcompress"]' and last["WORKDIR"] == "/models"
    assert last["USER"].isdigit() and int(last["USER"]) > 0
    text = DOCKERFILE.read_text(encoding="utf-8")
    (example,) = re.findall(r"^#\s+docker run .* ttcompress (.*)$", text, re.MULTILINE)
    command, *arguments = shlex.split(example)
    named = {word for word in arguments if word.startswith("-")}
    assert named and named <= options_of(command)


def test_torch_is_the_version_of_the_readme(action) -> None:
    (version,) = set(re.findall(r"torch==([\d.]+)", (ROOT / "README.md").read_text("utf-8")))
    assert action["inputs"]["torch"]["default"] == version
    assert f"torch=={version}" in DOCKERFILE.read_text(encoding="utf-8").split()


def test_hadolint_finds_nothing() -> None:
    done = subprocess.run(
        [find_tool("hadolint"), str(DOCKERFILE)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_shellcheck_finds_nothing(action) -> None:
    tool = find_tool("shellcheck")
    for one in action["runs"]["steps"]:
        if "run" in one:
            done = subprocess.run(
                [tool, "--shell=bash", "--severity=style", "-"],
                input=one["run"],
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stdout


def test_the_page_uses_the_action_as_it_is(action) -> None:
    page = (ROOT / "recipes" / "README.md").read_text(encoding="utf-8")
    ((used,),) = map(yaml.safe_load, re.findall(r"^```yaml action\n(.*?)^```$", page, re.M | re.S))
    place = used["uses"].partition("@")[0].removeprefix("OWNER/ttcompress/")
    assert ROOT / place == ACTION.parent
    assert used["with"].keys() <= action["inputs"].keys()
    required = {name for name, one in action["inputs"].items() if one.get("required")}
    assert required <= used["with"].keys()
