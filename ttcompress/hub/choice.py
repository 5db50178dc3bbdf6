"""Chooses the file of a repository that is the model: safetensors before torch's own files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches

from ttcompress.errors import InputError
from ttcompress.hub.address import Address

INDEX = ".index.json"

_KINDS = (
    (".safetensors", f".safetensors{INDEX}"),
    (".pt", ".pth", ".ckpt", ".bin", ".pkl", f".bin{INDEX}", f".pt{INDEX}"),
)
"""Endings of the files that may be models, the preferred kind first."""

_OF_A_TRAINER = re.compile(
    r"(training_args|optimizer|scheduler|scaler|rng_state(_\d+)?)\.(bin|pt|pth)", re.IGNORECASE
)
_SHARD = re.compile(r"-\d{5}-of-\d{5}\.\w+$")
_SHOWN = 8


def choose_file(address: Address, files: Sequence[str]) -> str:
    """The file that an address leads to, by its path in the repository.

    A path names a file, or a folder that holds the model; without one, it is in the repository's
    top folder. A sharded model is its index. What a trainer saves beside a model is none.

    Args:
        address: where to look.
        files: all files of the repository, with their folders.

    Raises:
        InputError: there is no such file, no model, or more than one of the preferred kind.

    >>> choose_file(Address("user/name"), ["README.md", "model.pt", "model.safetensors"])
    'model.safetensors'
    """
    if address.path in files:
        return address.path
    folder = f"{address.path}/" if address.path else ""
    inside = [name for name in files if name.startswith(folder)]
    if not inside:
        near = get_close_matches(address.path, files, n=1)
        hint = f"Did you mean {near[0]}?" if near else _list("It holds", files)
        raise InputError(f"{address}: there is no such file in the repository. {hint}")
    here = [name for name in inside if "/" not in name.removeprefix(folder)]
    for kind in _KINDS:
        found = [name for name in here if name.endswith(kind) and not _is_beside(name)]
        if any(name.endswith(INDEX) for name in found):
            found = [name for name in found if not _SHARD.search(name)]
        if len(found) > 1:
            named = Address(address.repository, address.revision, found[0])
            raise InputError(
                f"{address}: holds {len(found)} models: {_shorten(found)}. Name one, as in {named}."
            )
        if found:
            return found[0]
    raise InputError(
        f"{address}: holds no model. {_list('Its files are', inside)} "
        f"Name a file or a folder: {Address(address.repository, address.revision)}/FILE."
    )


def _is_beside(name: str) -> bool:
    return _OF_A_TRAINER.fullmatch(name.rpartition("/")[2]) is not None


def _list(words: str, files: Sequence[str]) -> str:
    return f"{words} {_shorten(files) or 'nothing'}."


def _shorten(files: Sequence[str]) -> str:
    more = len(files) - _SHOWN
    return ", ".join(files[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
