"""Commands that read from the hub and write to it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hub_stand_in import HubStandIn

import ttcompress
from ttcompress.cli.model_file import ModelFile
from ttcompress.workflows.manifest import read_manifest


@pytest.fixture
def stored(hub: HubStandIn, tiny_checkpoint: Path, tiny_artifact: Path) -> HubStandIn:
    hub.add("user/tiny", {"README.md": b"", "pytorch_model.bin": tiny_checkpoint.read_bytes()})
    hub.add("user/small", {"tiny.mps.safetensors": tiny_artifact.read_bytes()})
    return hub


MODEL, ARTIFACT = "hf://user/tiny", "hf://user/small"


@pytest.mark.parametrize(
    "command",
    [
        ("inspect", MODEL),
        ("plan", MODEL, "--factor", "2"),
        ("recipes", "check", "tiny", MODEL),
        ("report", ARTIFACT),
        ("report", ARTIFACT, "local.safetensors"),
        ("verify", ARTIFACT, "--against", MODEL),
        ("restore", ARTIFACT, "-o", "dense.pt"),
        ("card", ARTIFACT),
        ("export", ARTIFACT, "--as", "c", "-o", "c"),
    ],
    ids=" ".join,
)
def test_every_command_that_reads_a_model_reads_it_from_the_hub(
    command, run, stored, folder, tiny_artifact, monkeypatch
) -> None:
    monkeypatch.setenv("PATH", "")  # no compiler: what is written as C is not run
    (folder / "local.safetensors").write_bytes(tiny_artifact.read_bytes())
    result = run(*command)
    assert result.code == 0, result.err
    title = command[1] if command[0] in ("inspect", "plan", "verify", "report") else ""
    assert title in result.out


def test_a_result_is_named_after_the_repository(run, stored, folder) -> None:
    result = run("decompose", MODEL, "--factor", "2", "--format", "mps", "--store", "int8")
    assert result.code == 0
    assert result.err.endswith("wrote tiny.mps.safetensors\n")
    assert result.out.startswith("hf://user/tiny: recipe ")
    assert ttcompress.verify("tiny.mps.safetensors", MODEL).agrees


def test_nothing_is_downloaded_for_a_command_that_is_refused(run, hub, folder) -> None:
    (folder / "out").touch()
    for command in (
        ("decompose", MODEL, "--store", "int9"),
        ("restore", ARTIFACT, "-o", "missing/dense.pt"),
        ("inspect", "hf://tiny"),
    ):
        assert run(*command).code == 2
    assert run("inspect", "hf://tiny").err.startswith("error: hf://tiny: is not an address")
    assert hub.requests == []


def test_a_batch_takes_models_of_the_hub(run, stored, folder) -> None:
    matrix = "{models: ['hf://user/tiny'], recipes: [r.yaml]}"
    (folder / "r.yaml").write_text("{version: 1, budget: {factor: 2}, format: mps, store: int8}")
    (folder / "m.yaml").write_text(f"version: 1\nmatrix: {matrix}\n")
    jobs = read_manifest(folder / "m.yaml")[1]
    assert [(job.name, job.output.name) for job in jobs] == [("tiny under r", "tiny.r.safetensors")]
    assert jobs[0].model.name == "pytorch_model.bin"
    (folder / "bad.yaml").write_text(
        "version: 1\nmatrix: {models: ['hf://a/b'], recipes: [tiny]}\n"
    )
    result = run("batch", "bad.yaml")
    assert result.code == 2 and "hf://a/b: no such repository" in result.err


def test_push_puts_the_file_and_its_card_on_the_hub(
    run, hub, tiny_artifact, tiny_checkpoint
) -> None:
    result = run("push", tiny_artifact, "owner/tiny", "--private", "--base-model", "user/base")
    assert result.code == 0, result.err
    files = hub.repositories["owner/tiny"].branches["main"]
    assert files[tiny_artifact.name] == tiny_artifact.read_bytes()
    card = files["README.md"].decode()
    assert "base_model: user/base\n" in card
    assert f"ttcompress report hf://owner/tiny/{tiny_artifact.name}\n" in card
    assert hub.repositories["owner/tiny"].private
    assert result.out == ""
    assert result.err.startswith(f"pushed {tiny_artifact.name} and README.md to hf://owner/tiny: ")
    assert run("verify", "hf://owner/tiny", "--against", tiny_checkpoint).code == 0
    again = run("push", tiny_artifact, "owner/tiny")
    assert again.code == 2 and "--overwrite" in again.err
    done = run("push", tiny_artifact, "owner/tiny", "--revision", "v2", "--overwrite", "--json")
    assert done.json["address"] == "hf://owner/tiny@v2"
    assert (
        "report hf://owner/tiny@v2/"
        in hub.repositories["owner/tiny"].branches["v2"]["README.md"].decode()
    )


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        (("push", "absent.safetensors", "owner/tiny"), 2, "absent.safetensors: no such file"),
        (("push", "{}", "tiny"), 2, "tiny: is not a repository on the hub"),
        (("push", "{checkpoint}", "owner/tiny"), 3, "is not a readable safetensors file"),
        (("card", "{}", "--base-model", "base"), 2, "base: is not a repository"),
        (("card", "{}", "-o", "missing/README.md"), 2, "the folder missing does not exist"),
    ],
)
def test_what_cannot_be_pushed_is_refused(
    command, code, message, run, hub, tiny_artifact, tiny_checkpoint
) -> None:
    result = run(*(part.format(tiny_artifact, checkpoint=tiny_checkpoint) for part in command))
    assert result.code == code and message in result.err
    assert not hub.repositories


def test_card_writes_a_file_or_prints(run, folder, tiny_artifact) -> None:
    printed = run("card", tiny_artifact)
    assert printed.out.startswith("---\nlibrary_name: ttcompress\n")
    result = run("card", tiny_artifact, "-o", "README.md", "--base-model", "hf://user/base@v1")
    assert (result.code, result.out, result.err) == (0, "", "wrote README.md\n")
    written = (folder / "README.md").read_text(encoding="utf-8")
    assert "base_model: user/base\n" in written
    assert run("card", tiny_artifact, "--json").json == {"card": printed.out}


def test_without_the_extra_one_message_says_which(run, tiny_artifact, monkeypatch) -> None:
    monkeypatch.setattr("ttcompress.system.extras.find_spec", lambda name: None)
    for command in (("push", tiny_artifact, "user/name"), ("report", ARTIFACT)):
        result = run(*command)
        assert result.code == 2
        assert result.err.count("pip install 'ttcompress[hub]'") == 1


def test_a_download_shows_no_bar_where_nobody_looks(stored, capsys) -> None:
    assert ModelFile(MODEL).path.is_file()
    assert capsys.readouterr() == ("", "")
