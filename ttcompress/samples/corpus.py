"""Reads the documentation that comes with Python as English text, in three splits.

The text is what `help()` shows: the topics of `pydoc_data` and the docstrings of the standard
library, about 2 MB. Nothing is downloaded, and nothing is kept on disk.
"""

from __future__ import annotations

import ast
import hashlib
import itertools
import os
import sysconfig
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from pydoc_data.topics import topics
from typing import Literal

Split = Literal["train", "valid", "test"]

SPLITS: tuple[Split, ...] = ("train", "valid", "test")

# A paragraph in two splits belongs to the first of them here.
CLAIM_ORDER: tuple[Split, ...] = ("test", "valid", "train")

# Of the 256 values of the hash's first byte: about 9 % to test, 6 % to valid.
TEST_BELOW = 24
VALID_BELOW = 40

# Tests are written by other rules than library code, generated tables by none, and what is
# installed beside the library is not the library.
TESTS = {"test", "tests", "idle_test"}
GENERATED = {"encodings", "pydoc_data"}
INSTALLED = {"site-packages", "dist-packages"}
EXCLUDED_FOLDERS = frozenset(TESTS | GENERATED | INSTALLED)

PARAGRAPH_BREAK = "\n\n"

# How the charlm sample is measured: the head of a split, cut into parallel streams that carry
# their state from start to end. Short enough for a test run: 3 s on one core.
EVALUATED_CHARACTERS = 120_000
STREAMS = 32

# Stands for every character outside a vocabulary; this is its purpose in Unicode.
UNKNOWN = "\N{REPLACEMENT CHARACTER}"


def split_of(name: str) -> Split:
    """The split of the document `name`, by a hash, so that it is the same in every Python."""
    value = hashlib.sha256(name.encode()).digest()[0]
    if value < TEST_BELOW:
        return "test"
    return "valid" if value < VALID_BELOW else "train"


def library_files(split: Split) -> Iterator[Path]:
    """The standard library's own source files in `split`, by name, without its tests."""
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(_source_files(root)):
        if split_of(path.relative_to(root).as_posix()) == split:
            yield path


def _source_files(root: Path) -> Iterator[Path]:
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = set(subfolders) - EXCLUDED_FOLDERS  # os.walk enters those left in the list
        yield from (Path(folder, name) for name in names if name.endswith(".py"))


def read_source(path: Path) -> str:
    """The text of a library file; the few that are not UTF-8 lose their odd characters."""
    return path.read_text(encoding="utf-8", errors="replace")


def docstrings(source: str) -> Iterator[str]:
    """Every docstring in `source`, without its indentation; none where it is not valid Python."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # the library keeps templates and Python 2 files too
        return
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, documented) and (text := ast.get_docstring(node)):
            yield text


def documents(split: Split) -> Iterator[str]:
    """The topics of `split`, then the docstrings of its files, each in the order of its name."""
    yield from (topics[name] for name in sorted(topics) if split_of(name) == split)
    for path in library_files(split):
        yield from docstrings(read_source(path))


def paragraphs(split: Split) -> Iterator[str]:
    """The paragraphs of all documents of `split`, with repetitions."""
    for document in documents(split):
        yield from document.strip("\n").split(PARAGRAPH_BREAK)


def load(split: Split) -> str:
    """The text of `split`.

    Topics quote each other in full and docstrings are copied between modules, so every paragraph
    is kept once, in the first of test, valid and train that has it: what is tested was never
    trained on. The test split is therefore the quickest to load, in under a second.
    """
    earlier = itertools.takewhile(lambda claimant: claimant != split, CLAIM_ORDER)
    claimed = {paragraph for claimant in earlier for paragraph in paragraphs(claimant)}
    own = dict.fromkeys(paragraphs(split))
    return PARAGRAPH_BREAK.join(paragraph for paragraph in own if paragraph not in claimed)


def vocabulary(text: str, at_least: int) -> dict[str, int]:
    """`UNKNOWN` as 0, then the characters that occur `at_least` times, in the order of their code.

    Example:
        >>> vocabulary("banana", at_least=2)
        {'\ufffd': 0, 'a': 1, 'n': 2}
    """
    counts = Counter(text)
    known = sorted(c for c, count in counts.items() if count >= at_least and c != UNKNOWN)
    return {character: index for index, character in enumerate((UNKNOWN, *known))}


def encode(text: str, vocab: Mapping[str, int]) -> list[int]:
    """The index of each character of `text`; those outside `vocab` share that of `UNKNOWN`."""
    unknown = vocab[UNKNOWN]
    return [vocab.get(character, unknown) for character in text]
