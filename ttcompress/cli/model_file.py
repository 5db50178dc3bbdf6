"""Models as a command is given them: a path, or an address on the hub."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ttcompress.hub import Address


@dataclass(frozen=True)
class ModelFile:
    """A model or an artifact as the user names it; an address is downloaded on first use.

    So a command can refuse its other arguments before a download, which can be long.

    Attributes:
        name: the path, or `hf://user/name`.
        quiet: whether a download shows no bar.

    Raises:
        InputError: the name begins like an address, but is none.
    """

    name: str
    quiet: bool = False

    def __post_init__(self) -> None:
        _ = self.address

    def __str__(self) -> str:
        return self.name

    @cached_property
    def address(self) -> Address | None:
        """Where it is on the hub; None for a file."""
        from ttcompress.hub import find_address

        return find_address(self.name)

    @cached_property
    def path(self) -> Path:
        """The file on this machine.

        Raises:
            TTCompressError: it cannot be downloaded; see `local_file`.
        """
        from ttcompress.hub import local_file

        return local_file(self.name, bars=not self.quiet and sys.stderr.isatty())

    @property
    def stem(self) -> str:
        """What it is called in the names of files made from it."""
        from ttcompress.system.files import model_stem

        return self.address.stem if self.address else model_stem(Path(self.name))


def silence(given: Any) -> Any:
    """The value of an option or an argument, with downloads that show no bar."""
    if isinstance(given, list):
        return [silence(one) for one in given]
    return replace(given, quiet=True) if isinstance(given, ModelFile) else given
