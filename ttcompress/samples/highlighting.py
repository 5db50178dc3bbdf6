"""Reads the source of Python's standard library, with a label for each character.

The labels are those by which an editor chooses colours, as `tokenize` gives them: the characters of
a token have its label, those between tokens are space.
"""

from __future__ import annotations

import io
import keyword
import tokenize
from collections.abc import Iterator
from itertools import accumulate

from ttcompress.samples.corpus import Split, library_files, read_source

LABELS = ("keyword", "name", "string", "comment", "number", "operator", "space")
KEYWORD, NAME, STRING, COMMENT, NUMBER, OPERATOR, SPACE = range(len(LABELS))

# How the highlighter sample is measured: windows from all over a split, in 3 s on one core.
WINDOW = 512
EVALUATED_WINDOWS = 234

LABEL_OF_TYPE = {
    tokenize.NAME: NAME,
    tokenize.STRING: STRING,
    tokenize.COMMENT: COMMENT,
    tokenize.NUMBER: NUMBER,
    tokenize.OP: OPERATOR,
}


def load(split: Split) -> tuple[str, bytes]:
    """The source files of `split`, one after the other, and each character's index in `LABELS`.

    A file that this Python's tokenizer rejects is left out.
    """
    labelled = list(_labelled_files(split))
    return "".join(source for source, _ in labelled), b"".join(labels for _, labels in labelled)


def windows(text: str, labels: bytes, count: int) -> list[tuple[str, bytes]]:
    """`count` windows of `WINDOW` characters and their labels, evenly spaced from the first on.

    Raises:
        ValueError: there are fewer than `count` whole windows in `text`.
    """
    available = len(text) // WINDOW
    if available < count:
        raise ValueError(
            f"expected at least {count} windows of {WINDOW} characters, got {available}"
        )
    starts = [k * available // count * WINDOW for k in range(count)]
    return [(text[s : s + WINDOW], labels[s : s + WINDOW]) for s in starts]


def label(source: str) -> bytes:
    """The index in `LABELS` of each character of `source`; `source[k]` has label `result[k]`.

    Raises:
        tokenize.TokenError, SyntaxError: `source` is not Python.
    """
    labels = bytearray([SPACE]) * len(source)
    line_starts = [0, *accumulate(len(line) for line in io.StringIO(source))]
    for token_label, (first_line, first), (last_line, last) in _spans(source):
        start, stop = line_starts[first_line - 1] + first, line_starts[last_line - 1] + last
        labels[start:stop] = bytes([token_label]) * (stop - start)
    return bytes(labels)


def _labelled_files(split: Split) -> Iterator[tuple[str, bytes]]:
    for path in library_files(split):
        source = read_source(path)
        try:
            yield source, label(source)
        except (tokenize.TokenError, SyntaxError):
            continue


def _spans(source: str) -> Iterator[tuple[int, tuple[int, int], tuple[int, int]]]:
    """Label, start and end (line from 1, column from 0) of every token; later ones cover earlier.

    Since Python 3.12 an f-string is many tokens, with those of its expressions. Here its end adds
    one string over all of them, as before 3.12, so that every Python gives the same labels.
    """
    open_strings: list[tuple[int, int]] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        kind = tokenize.tok_name[token.type]
        if kind.endswith("STRING_START"):
            open_strings.append(token.start)
        elif kind.endswith("STRING_END"):
            yield STRING, open_strings.pop(), token.end
        elif token.type in LABEL_OF_TYPE:
            is_keyword = token.type == tokenize.NAME and keyword.iskeyword(token.string)
            yield KEYWORD if is_keyword else LABEL_OF_TYPE[token.type], token.start, token.end
