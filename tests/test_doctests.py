"""Every example in a docstring is run."""

from __future__ import annotations

import doctest
import pkgutil
from importlib import import_module

import ttcompress

MODULES = [
    info.name
    for info in pkgutil.walk_packages(ttcompress.__path__, "ttcompress.")
    if not info.name.endswith("__main__")
]


def test_examples_are_true() -> None:
    """doctest prints what it expected and what it got instead."""
    wrong = [name for name in MODULES if doctest.testmod(import_module(name)).failed]
    assert not wrong


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder()
    found = [test for name in MODULES for test in finder.find(import_module(name))]
    assert sum(bool(test.examples) for test in found) >= 10
