"""What is an address on the hub, what it leads to, and that a file's path is none."""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest

from ttcompress.errors import InputError
from ttcompress.hub import Address, find_address, local_file

READ = {
    "hf://user/name": Address("user/name"),
    "hf://user/name/": Address("user/name"),
    "hf://models/user/name": Address("user/name"),
    "hf://user/name@v1.0": Address("user/name", "v1.0"),
    "hf://user/name/charlm.pt": Address("user/name", path="charlm.pt"),
    "hf://user/name@main/small/charlm.pt": Address("user/name", "main", "small/charlm.pt"),
    "hf://user/name/a@b.pt": Address("user/name", path="a@b.pt"),
    "hf://user/name/of last week.pt": Address("user/name", path="of last week.pt"),
    "hf://user/name@refs/pr/3/charlm.pt": Address("user/name", "refs/pr/3", "charlm.pt"),
    "hf://user/name@feature%2Fsmall/charlm.pt": Address("user/name", "feature/small", "charlm.pt"),
}


@pytest.mark.parametrize("text", READ)
def test_an_address_is_read_as_the_hub_reads_it(text: str) -> None:
    assert find_address(text) == READ[text]
    hub = pytest.importorskip("huggingface_hub")
    if not hasattr(hub, "parse_hf_uri"):
        pytest.skip("this version of huggingface_hub reads no addresses")
    theirs = hub.parse_hf_uri(text)
    ours = READ[text]
    assert (ours.repository, ours.revision, ours.path) == (
        theirs.id,
        theirs.revision,
        theirs.path_in_repo,
    )


@pytest.mark.parametrize("address", READ.values(), ids=str)
def test_an_address_is_written_as_it_is_read(address: Address) -> None:
    assert find_address(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        *("hf://", "hf://user", "hf://user/", "hf://user/name@", "hf://user/name@/x"),
        *("hf://user/name/../x", "hf://user/name//x", "hf://us er/name", "hf:///user/name"),
        "hf://user\\name",
    ],
)
def test_what_only_begins_like_an_address_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is not an address on the hub"):
        find_address(text)


def test_other_things_on_the_hub_are_refused_by_name() -> None:
    with pytest.raises(InputError, match="hf://datasets/user/name: leads to datasets"):
        find_address("hf://datasets/user/name")


@pytest.mark.parametrize(
    "path",
    [
        *("charlm.pt", "C:\\models\\charlm.pt", "C:/models/charlm.pt", "models/my file.pt"),
        *("\\\\server\\share\\charlm.pt", "/hf:/user/name", "HF://user/name", "hf:user", "~/x.pt"),
    ],
)
def test_a_path_of_any_system_is_none(path: str) -> None:
    assert find_address(path) is None
    assert find_address(PureWindowsPath(path)) is find_address(PurePosixPath(path)) is None
    assert local_file(path) == Path(path)


@pytest.mark.parametrize("kind", [PurePosixPath, PureWindowsPath])
@pytest.mark.parametrize("text", READ)
def test_a_path_object_is_one_too(kind: type[PurePosixPath], text: str) -> None:
    assert find_address(kind(text)) == READ[text]


@pytest.mark.parametrize(
    ("text", "stem"),
    [
        ("hf://user/charlm@v1", "charlm"),
        ("hf://user/name/small/charlm.pt", "charlm"),
        ("hf://user/name/model.safetensors.index.json", "model"),
    ],
)
def test_outputs_are_named_after_the_file_or_the_repository(text: str, stem: str) -> None:
    assert READ["hf://user/name"].stem == "name"
    found = find_address(text)
    assert found is not None and found.stem == stem
