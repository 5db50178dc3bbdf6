"""Notices that a file changed while it was read: stamp it before, and check the stamp after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ttcompress.errors import TTCompressError


@dataclass(frozen=True)
class Stamp:
    """Which file stands under a path, how long it is, and when it was last written."""

    device: int
    inode: int
    size: int
    modified: int  # nanoseconds

    @classmethod
    def of(cls, path: Path) -> Self:
        """The stamp of a file now.

        Raises:
            OSError: it is gone.
        """
        found = path.stat()
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def check_unchanged(stamps: Mapping[Path, Stamp]) -> None:
    """Refuse what was read of files that were written meanwhile: it is of no one state of them.

    Raises:
        TTCompressError: a file was changed or replaced.
        OSError: one is gone.
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
