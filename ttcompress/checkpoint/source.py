"""What every container reader returns: the tree of values, and where its tensors' bytes lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ttcompress.checkpoint.stored import Bytes


@dataclass(frozen=True)
class Source:
    """A file (or the files of a sharded model) taken apart, with no tensor read.

    `root` is the pickled value with `StoredTensor` leaves; `storages` holds their bytes. `stubbed`
    names the classes that were met and not loaded.
    """

    container: str
    root: Any
    storages: Mapping[str, Bytes]
    files: tuple[Path, ...]
    stubbed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
