"""Puts a compressed model on the Hugging Face hub, with a model card: `push`, `card`."""

from __future__ import annotations

from pathlib import Path

from ttcompress.artifact import load
from ttcompress.hub import Address, find_address, local_file
from ttcompress.hub.address import check_repository
from ttcompress.hub.client import Pushed, check_hub, upload
from ttcompress.reporting.card import model_card
from ttcompress.system.files import model_stem

CARD = "README.md"
SUFFIX = ".safetensors"

__all__ = ["Pushed", "card", "push"]


def card(artifact: str | Path, *, place: str | None = None, base_model: str | None = None) -> str:
    """The model card of a compressed model: Markdown with front matter.

    Args:
        artifact: its file, or its address on the hub.
        place: what the card's commands call it; by default the file's name or the address.
        base_model: the original's repository on the hub, `user/name`.

    Raises:
        InputError: the file does not exist, or a repository is not `user/name`.
        ArtifactError: it is not a compressed model.
    """
    if base_model is not None:
        address = find_address(base_model)
        base_model = address.repository if address else base_model
        check_repository(base_model)
    address, path = find_address(artifact), local_file(artifact)
    report = load(path).report
    name = address.stem if address else model_stem(path)
    here = str(address) if address else path.name
    return model_card(report, path.stat().st_size, name, place or here, base_model)


def push(
    artifact: str | Path,
    repository: str,
    *,
    private: bool = False,
    revision: str | None = None,
    base_model: str | None = None,
    overwrite: bool = False,
    bars: bool = False,
) -> Pushed:
    """Put a compressed model and its card into a repository on the hub, which is made if needed.

    The token is the one of `hf auth login` or HF_TOKEN.

    Args:
        artifact: the compressed model's file.
        repository: `user/name`.
        private: a new repository is visible to its owner alone.
        revision: the branch, which is made if needed; by default the main one.
        base_model: the original's repository on the hub, `user/name`.
        overwrite: replace a file or a card that is there.
        bars: show a bar on stderr.

    Raises:
        MissingExtraError: the extra `hub` is not installed.
        InputError, ArtifactError: there is no such file, it is not a compressed model, or a
            repository is not `user/name`.
        OutputPathError: a file or a card is there, and `overwrite` is not given.
        TTCompressError: the hub cannot be reached, or refuses.
    """
    check_repository(repository)
    check_hub(f"push to {repository}")
    path = local_file(artifact)
    name = path.name if path.suffix == SUFFIX else path.name + SUFFIX  # so that it is found there
    text = card(path, place=str(Address(repository, revision, name)), base_model=base_model)
    return upload(
        repository,
        {name: path, CARD: text.encode()},
        f"Add {name}, compressed by ttcompress",
        private=private,
        revision=revision,
        overwrite=overwrite,
        bars=bars,
    )
