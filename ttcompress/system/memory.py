"""Measures and releases memory, and reports a lack of it as an `OutOfMemoryError`."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ttcompress.errors import OutOfMemoryError

_REFUSED = re.compile(r"can't allocate memory|out of memory", re.IGNORECASE)
_ASKED = re.compile(r"tried to allocate ([\d.]+ ?\w+)")


def machine_memory() -> int:
    """Bytes of this machine's memory, or `sys.maxsize` if the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return sys.maxsize


def release_memory() -> None:
    """Return freed memory to the system if the C library would keep it.

    glibc keeps freed blocks of up to 32 MB: after a few matrices of 1500 columns, 160 MB.
    """
    with suppress(AttributeError, OSError, TypeError):  # other C libraries return it by themselves
        ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def within_memory(what: str) -> Iterator[None]:
    """Turn a failed allocation in the block into an error that names `what` needed the memory.

    Python raises `MemoryError`; torch raises a `RuntimeError` that only its text identifies.

    Raises:
        OutOfMemoryError: the block needed more memory than there is.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not _REFUSED.search(str(error)):
            raise
        asked = _ASKED.search(str(error))
        fact = f": it could not provide {asked[1]} more" if asked else ""
        raise OutOfMemoryError(
            f"{what}: needs more memory than this machine has{fact}. "
            "Free some, run fewer jobs at once (-j), or use a larger machine."
        ) from error
