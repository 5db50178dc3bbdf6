"""Cleans text from untrusted files before it is shown or written.

A name in a pickle or in JSON may contain control characters, which a terminal would obey; half of a
surrogate pair, which no encoding can write; or a million letters. Each function here prepares text
for one place where it may go.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

SHOWN = 80
"""How many characters of a name a message shows."""

_HALF_SURROGATE = re.compile("[\ud800-\udfff]")
_TERMINAL_COMMANDS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]|\r(?!\n)")
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def clip(text: str, length: int = SHOWN) -> str:
    """The beginning of a text, as a message may quote it.

    >>> clip("lstm.weight" + chr(27), 12), clip("lstm.weight", 4)
    ('lstm.weight?', 'lstm')
    """
    return clean_line(text[:length])


def shape_text(shape: Iterable[int]) -> str:
    """The shape of a tensor for a message.

    >>> shape_text((32, 98)), shape_text(())
    ('32 x 98', 'no axes')
    """
    return " x ".join(map(str, shape)) or "no axes"


def clean_line(text: str) -> str:
    """Text for a single line: everything that is not printable becomes a question mark."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def clean_for_terminal(text: str) -> str:
    """Text of any number of lines, without the characters that command a terminal."""
    return _TERMINAL_COMMANDS.sub("?", text)


def clean_for_xml(text: str) -> str:
    """Text without the characters that XML 1.0 forbids even escaped, such as terminal colours."""
    return _NOT_XML.sub("?", text)


def find_half_surrogate(text: str) -> int | None:
    """Index of the first half of a surrogate pair, or None; no encoding can write one.

    >>> find_half_surrogate("a" + chr(0xD800)), find_half_surrogate("é")
    (1, None)
    """
    found = _HALF_SURROGATE.search(text)
    return found.start() if found else None
