"""Downloads and uploads, against a hub on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hub_stand_in import READ_ONLY, TOKEN, HubStandIn
from safetensors.torch import save

import ttcompress
from ttcompress.checkpoint import open_checkpoint
from ttcompress.errors import (
    InputError,
    MissingExtraError,
    OutputError,
    OutputPathError,
    TTCompressError,
)
from ttcompress.hub import local_file
from ttcompress.hub.client import upload

CARD = b"---\nlibrary_name: ttcompress\n---\n"


@pytest.fixture
def model(tiny_checkpoint: Path) -> bytes:
    return tiny_checkpoint.read_bytes()


def test_a_model_is_read_from_the_hub(hub: HubStandIn, model: bytes, tiny_checkpoint) -> None:
    hub.add("user/tiny", {"README.md": CARD, "model.pt": model})
    there, here = open_checkpoint("hf://user/tiny"), open_checkpoint(tiny_checkpoint)
    assert (there.label, there.sha256) == ("hf://user/tiny", here.sha256)
    path = local_file("hf://user/tiny")
    assert path.is_relative_to(os.environ["HF_HUB_CACHE"]) and path.name == "model.pt"
    before = len(hub.requests)
    assert local_file(Path("hf://user/tiny")) == path
    again = [method for method, path in hub.requests[before:] if "/resolve/" in path]
    assert again == ["HEAD"]


def test_an_artifact_is_read_from_the_hub(hub: HubStandIn, tiny_artifact, tiny_checkpoint) -> None:
    hub.add("user/tiny", {"tiny.mps.safetensors": tiny_artifact.read_bytes()})
    loaded = ttcompress.load("hf://user/tiny")
    assert loaded.report == ttcompress.load(tiny_artifact).report
    assert ttcompress.verify("hf://user/tiny", tiny_checkpoint).agrees


def test_a_revision_and_a_file_are_taken_as_named(hub: HubStandIn) -> None:
    made = hub.add("user/name", {"a.pt": b"new a", "b.pt": b"new b"})
    made.branches["v1"] = {"a.pt": b"old a"}
    commit = made.commit_of("v1")
    for address, content in (
        ("hf://user/name/b.pt", b"new b"),
        ("hf://user/name@v1", b"old a"),
        (f"hf://user/name@{commit}/a.pt", b"old a"),
    ):
        assert local_file(address).read_bytes() == content


def test_the_shards_come_with_their_index(hub: HubStandIn, tmp_path: Path) -> None:
    parts = {f"m-0000{k}-of-00002.safetensors": {f"{k}.weight": torch.ones(8, 6)} for k in (1, 2)}
    places = {name: file for file, tensors in parts.items() for name in tensors}
    index = json.dumps({"weight_map": places}).encode()
    files = {file: save(tensors) for file, tensors in parts.items()}
    hub.add(
        "user/big",
        {f"fp32/{n}": f for n, f in (files | {"m.safetensors.index.json": index}).items()},
    )
    assert [w.name for w in open_checkpoint("hf://user/big/fp32").weights] == list(places)


def test_a_hostile_index_brings_nothing_else(hub: HubStandIn) -> None:
    index = b'{"weight_map": {"a": "../../secret", "b": "/etc/passwd", "c": "sub/x.safetensors"}}'
    hub.add("user/bad", {"m.safetensors.index.json": index, "../x.pt": b"", "secret": b"x"})
    path = local_file("hf://user/bad")
    fetched = [path for _, path in hub.requests if "/resolve/" in path]
    assert {path.rpartition("/")[2] for path in fetched} == {"m.safetensors.index.json"}
    with pytest.raises(TTCompressError, match="outside its own folder"):
        open_checkpoint(path)


def test_a_pickle_of_the_hub_is_read_as_data(hub: HubStandIn, tmp_path: Path, monkeypatch) -> None:
    class Hostile:
        def __reduce__(self):
            return os.mkdir, ("owned",)

    monkeypatch.chdir(tmp_path)
    torch.save({"weight": torch.randn(8, 6), "extra": Hostile()}, "model.pt")
    hub.add("user/bad", {"model.pt": Path("model.pt").read_bytes(), "setup.py": b"1/0"})
    with pytest.raises(TTCompressError):
        open_checkpoint("hf://user/bad")
    assert not Path("owned").exists()


@pytest.mark.parametrize(
    ("address", "token", "message"),
    [
        ("hf://user/nome", TOKEN, "hf://user/nome: no such repository, or a private one"),
        ("hf://user/secret", "", "no such repository, or a private one .*`hf auth login`"),
        ("hf://user/gated", READ_ONLY, "is gated, and you have no access. Ask for access"),
        ("hf://user/name@v9", TOKEN, "hf://user/name@v9: there is no such revision"),
        ("hf://user/name/x.pt", TOKEN, "there is no such file in the repository"),
        ("hf://user/na--me", TOKEN, "is not a valid repository"),
    ],
)
def test_what_is_not_there_is_one_message(address, token, message, hub, monkeypatch) -> None:
    hub.add("user/name", {"model.pt": b"x"})
    hub.add("user/secret", {"model.pt": b"x"}, private=True)
    hub.add("user/gated", {"model.pt": b"x"}, gated=True)
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(InputError, match=message):
        local_file(address)


def test_a_private_model_needs_the_token(hub: HubStandIn) -> None:
    hub.add("user/secret", {"model.pt": b"x"}, private=True)
    assert local_file("hf://user/secret").read_bytes() == b"x"


def test_no_connection_is_one_message(hub: HubStandIn, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(TTCompressError, match="hf://user/name: the hub cannot be reached"):
        local_file("hf://user/name")


def test_offline_takes_what_is_in_the_cache(hub: HubStandIn, monkeypatch) -> None:
    hub.add("user/name", {"model.pt": b"x"})
    path = local_file("hf://user/name")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    hub.requests.clear()
    assert local_file("hf://user/name") == path
    assert local_file(f"hf://user/name@{path.parent.name}/model.pt") == path
    for address in ("hf://user/other", "hf://user/name@v1"):
        with pytest.raises(InputError, match="is not in the cache, and HF_HUB_OFFLINE is set"):
            local_file(address)
    assert not hub.requests


def test_offline_without_any_cache_is_one_message(hub: HubStandIn, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="is not in the cache, and HF_HUB_OFFLINE is set"):
        local_file("hf://user/name")


def test_a_cache_that_cannot_be_written_is_one_message(hub: HubStandIn, tmp_path: Path) -> None:
    hub.add("user/name", {"model.pt": b"x"})
    Path(os.environ["HF_HUB_CACHE"]).write_bytes(b"a file where the folder should be")
    with pytest.raises(OutputError, match=r"hf://user/name: cannot be written to the cache: .*HF_"):
        local_file("hf://user/name")


def test_bars_are_as_they_were_afterwards(hub: HubStandIn) -> None:
    bars = pytest.importorskip("huggingface_hub.utils")
    hub.add("user/name", {"model.pt": b"x"})
    local_file("hf://user/name")
    assert not bars.are_progress_bars_disabled()
    bars.disable_progress_bars()
    try:
        local_file("hf://user/name")
        assert bars.are_progress_bars_disabled()
    finally:
        bars.enable_progress_bars()


def test_without_the_extra_there_is_one_message(hub: HubStandIn, monkeypatch) -> None:
    monkeypatch.setattr("ttcompress.system.extras.find_spec", lambda name: None)
    for call in (lambda: local_file("hf://user/name"), lambda: upload("user/name", {}, "x")):
        with pytest.raises(MissingExtraError, match=r"pip install 'ttcompress\[hub\]'"):
            call()


def test_files_are_pushed_in_one_commit(hub: HubStandIn, model: bytes, tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(model)
    done = upload("owner/new", {"README.md": CARD, "m.pt": tmp_path / "m"}, "Add", private=True)
    repository = hub.repositories["owner/new"]
    assert repository.private
    assert repository.branches["main"] == {".gitattributes": b"", "README.md": CARD, "m.pt": model}
    assert done.address == "hf://owner/new" and done.url.endswith(done.commit)
    assert local_file(f"hf://owner/new@{done.commit}").read_bytes() == model


def test_an_upload_that_fails_is_one_message(hub: HubStandIn, model: bytes) -> None:
    hub.refuses_large_files = True
    with pytest.raises(OutputError, match=r"hf://owner/new: the upload failed \(Bad request"):
        upload("owner/new", {"m.pt": model}, "Add")
    assert "m.pt" not in hub.repositories["owner/new"].branches["main"]


def test_a_push_replaces_only_if_asked(hub: HubStandIn) -> None:
    upload("owner/name", {"README.md": CARD, "m.pt": b"old"}, "Add")
    with pytest.raises(OutputPathError, match=r"already holds m\.pt\. Use --overwrite"):
        upload("owner/name", {"m.pt": b"new"}, "Replace")
    assert hub.repositories["owner/name"].branches["main"]["m.pt"] == b"old"
    upload("owner/name", {"m.pt": b"new"}, "Replace", overwrite=True)
    assert hub.repositories["owner/name"].branches["main"]["m.pt"] == b"new"


def test_a_push_adds_to_what_is_there(hub: HubStandIn) -> None:
    upload("owner/name", {"README.md": CARD, "m.pt": b"old"}, "Add")
    upload("owner/name", {"other.pt": b"new"}, "Add")
    found = hub.repositories["owner/name"].branches["main"]
    assert (found["m.pt"], found["other.pt"]) == (b"old", b"new")


def test_a_branch_is_made_and_the_main_one_stays(hub: HubStandIn) -> None:
    upload("owner/name", {"m.pt": b"old"}, "Add")
    done = upload("owner/name", {"m.pt": b"new"}, "Add", revision="small", overwrite=True)
    branches = hub.repositories["owner/name"].branches
    assert (branches["main"]["m.pt"], branches["small"]["m.pt"]) == (b"old", b"new")
    assert done.address == "hf://owner/name@small"


def test_a_public_repository_is_not_taken_for_a_private_one(hub: HubStandIn) -> None:
    hub.add("owner/open", {})
    with pytest.raises(InputError, match="hf://owner/open: is public"):
        upload("owner/open", {"m.pt": b"x"}, "Add", private=True)
    assert hub.repositories["owner/open"].branches["main"] == {}


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ("", "Invalid username or password.*Log in with `hf auth login`"),
        (READ_ONLY, "Use a token that may write to this repository"),
    ],
)
def test_who_may_not_write_is_told(token, message, hub: HubStandIn, monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(OutputError, match=message):
        upload("owner/new", {"m.pt": b"x"}, "Add")
    assert not hub.repositories


@pytest.mark.parametrize("name", ["name", "user/name/x", "hf://user/name", "user/na me", ""])
def test_a_name_that_is_no_repository_is_refused(name: str, hub: HubStandIn) -> None:
    with pytest.raises(InputError, match="is not a repository on the hub"):
        upload(name, {}, "x")
    assert not hub.requests


def test_the_environment_of_huggingface_hub_decides(hub: HubStandIn, tmp_path: Path) -> None:
    """In a process of its own: that library reads its variables when it is imported."""
    hub.add("user/name", {"model.pt": b"x"}, private=True)
    environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home")}
    environment.pop("HF_HUB_CACHE")
    code = "from ttcompress.hub import local_file; print(local_file('hf://user/name'))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert Path(done.stdout.strip()).is_relative_to(tmp_path / "home")
