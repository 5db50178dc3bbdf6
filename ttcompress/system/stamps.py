"""Detects files that change while they are read: stamp them before, check the stamps after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ttcompress.errors import TTCompressError


@dataclass(frozen=True)
class Stamp:
    """Which file a path leads to, how long it is, and when it was last written."""

    device: int
    inode: int
    size: int
    modified: int  # nanoseconds

    @classmethod
    def of(cls, path: Path) -> Self:
        """Take the stamp of a file.

        Raises:
            OSError: the file does not exist.
        """
        found = path.stat()
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def check_unchanged(stamps: Mapping[Path, Stamp]) -> None:
    """Refuse what was read from files that changed meanwhile: it may mix two states of them.

    Raises:
        TTCompressError: a file was changed or replaced.
        OSError: a file no longer exists.
    """
    for path, stamp in stamps.items():
        now = Stamp.of(path)
        if now != stamp:
            was = (
                f"{stamp.size:,} bytes, now {now.size:,}" if now.size != stamp.size else "rewritten"
            )
            raise TTCompressError(
                f"{path}: was changed while it was being read ({was}). "
                "Run again when nothing writes to it."
            )
