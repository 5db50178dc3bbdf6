"""The interface of every reader of model files (`Container`) and what it returns (`Source`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ttcompress.checkpoint.tensors import Bytes
from ttcompress.system.stamps import Stamp


@dataclass(frozen=True)
class Source:
    """The structure of a file, of a sharded model's files or of a model in memory; no tensor read.

    `root` is the pickled value with `StoredTensor` leaves; `storages` holds their bytes. `unloaded`
    names the classes that were met but not loaded. `stamps` records every file as it was before
    reading. `without_weights` says why, in a file that turns out to hold none. `own_names` says
    that the names are those of a module that is at hand, and stay. `hash` gives the SHA-256 of what
    is in no file.
    """

    container: str
    root: Any
    storages: Mapping[str, Bytes]
    unloaded: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    stamps: Mapping[Path, Stamp] = field(default_factory=dict)
    without_weights: str = ""
    own_names: bool = False
    hash: Callable[[], str] | None = None


class Container(Protocol):
    """A kind of model file; each module in this package with these two functions is one."""

    def owns(self, head: bytes) -> bool:
        """Whether a file that begins with these bytes is of this kind."""

    def read(self, path: Path) -> Source:
        """Read the structure of a file of this kind, but no tensor.

        Raises:
            CheckpointError: damaged, hostile, or without PyTorch weights.
            OSError: the file cannot be read.
        """
