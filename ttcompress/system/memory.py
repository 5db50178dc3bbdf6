"""Memory: how much there is, giving back what is free, and the error where there is too little."""

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
    """Bytes of this machine's memory; without bound where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return sys.maxsize


def give_back() -> None:
    """Return free memory to the system, where the C library is one that would hold on to it.

    glibc keeps freed blocks of up to 32 MB: after a few matrices of 1500 columns, 160 MB.
    """
    with suppress(AttributeError, OSError, TypeError):  # another C library gives it back by itself
        ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def within_memory(what: str) -> Iterator[None]:
    """Name what needed the memory that the system would not give.

    Python says so by `MemoryError`; torch by a `RuntimeError` that only its text tells from others.

    Raises:
        OutOfMemoryError: the block asked for more memory than there is.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not _REFUSED.search(str(error)):
            raise
        asked = _ASKED.search(str(error))
        fact = f", which refused {asked[1]} more" if asked else ""
        raise OutOfMemoryError(
            f"{what}: needs more memory than this machine gives{fact}. "
            "Free some, run fewer jobs at once (-j), or take a larger machine."
        ) from error
