"""What may take more memory than there is: the system's refusal enters, the error's fact leaves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from ttcompress.errors import OutOfMemoryError

_REFUSED = re.compile(r"can't allocate memory|out of memory", re.IGNORECASE)
_ASKED = re.compile(r"tried to allocate ([\d.]+ ?\w+)")


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
