"""How much memory there is, and giving back what is free."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress


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
