"""Says what of a source's file is not in the result: `left_out_remarks`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ttcompress.model.report import ANOTHER_MODEL, LeftOut
from ttcompress.recipe.wording import counted


def left_out_remarks(left_out: Sequence[LeftOut]) -> Iterator[str]:
    """A line for each entry, and how to take another model.

    >>> list(left_out_remarks([LeftOut("optimizer", 2, 64, "optimizer state")]))
    ['left out: `optimizer`, optimizer state (2 tensors, 64 bytes)']
    """
    for one in left_out:
        size = f" ({counted(one.tensors, 'tensor')}, {one.bytes:,} bytes)" if one.tensors else ""
        cure = f"; compress it with --key {one.key}, or every one with --key all"
        yield f"left out: {_what(one)}{size}{cure if one.why == ANOTHER_MODEL else ''}"


def _what(one: LeftOut) -> str:
    """The key if there is one, and what is there."""
    if one.key == ".":
        return f"{one.bytes:,} bytes of {one.why}" if one.bytes else one.why
    return f"`{one.key}`, {one.why}"
