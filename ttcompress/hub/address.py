"""Addresses of models on the hub: `find_address`.

    hf://[models/]user/name[@revision][/path/of/a/file/or/folder]

This is the hub's own notation (`huggingface_hub.parse_hf_uri`), of model repositories alone. A
revision is a branch, a tag or a commit; a slash in it is `%2F`, but for `refs/pr/1`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePath, PurePosixPath
from urllib.parse import unquote

from ttcompress.errors import InputError

PREFIX = "hf://"

_NAME = r"\w[\w.-]*"
_BODY = re.compile(
    rf"(?:models/)?(?P<repository>{_NAME}/{_NAME})"
    r"(?:@(?P<revision>refs/(?:pr/\d+|convert/[\w.-]+)|[^/]+))?(?:/(?P<path>.*?))?/?",
    re.ASCII,
)
_REPOSITORY = re.compile(f"{_NAME}/{_NAME}", re.ASCII)
_OTHER_KINDS = ("datasets/", "spaces/", "buckets/", "kernels/")


@dataclass(frozen=True)
class Address:
    """A model repository, or a file or folder in it.

    Attributes:
        repository: `user/name`.
        revision: a branch, a tag or a commit; None is the main branch.
        path: of a file or a folder in the repository, with slashes; "" is all of it.
    """

    repository: str
    revision: str | None = None
    path: str = ""

    @property
    def stem(self) -> str:
        """What the model is called in the names of files made from it.

        >>> Address("user/charlm", "v1").stem, Address("user/all", path="small/charlm.pt").stem
        ('charlm', 'charlm')
        """
        from ttcompress.system.files import model_stem  # too slow to import for --help

        return (
            model_stem(PurePosixPath(self.path)) if self.path else self.repository.partition("/")[2]
        )

    def __str__(self) -> str:
        revision = self.revision or ""
        if not revision.startswith("refs/"):
            revision = revision.replace("/", "%2F")
        at, below = (f"@{revision}" if revision else ""), (f"/{self.path}" if self.path else "")
        return f"{PREFIX}{self.repository}{at}{below}"


def find_address(model: object) -> Address | None:
    """The address that a model is given by; None if it is anything else, such as a file's path.

    A `Path` may be one too, although it has made one slash of the two.

    Raises:
        InputError: it begins like an address, but is not one of a model.

    >>> find_address("hf://user/charlm@v1/charlm.mps.safetensors")
    Address(repository='user/charlm', revision='v1', path='charlm.mps.safetensors')
    >>> find_address("models/charlm.pt")
    """
    if isinstance(model, PurePath):
        start, text = "hf:/", model.as_posix()
    else:
        start, text = PREFIX, str(model)
    if not text.startswith(start):
        return None
    body = text[len(start) :]
    if body.startswith(_OTHER_KINDS):
        kind = body.partition("/")[0]
        raise InputError(f"{PREFIX}{body}: leads to {kind}. Give the address of a model.")
    found = _BODY.fullmatch(body)
    path = found["path"] or "" if found else ""
    if found is None or not {"", ".", ".."}.isdisjoint(path.split("/") if path else ()):
        raise InputError(
            f"{PREFIX}{body}: is not an address on the hub. "
            f"Write {PREFIX}user/name, {PREFIX}user/name@revision or {PREFIX}user/name/file."
        )
    revision = found["revision"]
    return Address(found["repository"], revision and unquote(revision), path)


def check_repository(name: str) -> None:
    """Refuse what cannot be a repository's name.

    Raises:
        InputError: it is not `user/name`.
    """
    if not _REPOSITORY.fullmatch(name):
        raise InputError(f"{name}: is not a repository on the hub. Write user/name.")
