"""Post-training compression of LSTMs by tensor trains.

    import ttcompress

    model = ttcompress.compress("model.pt", "balanced")
    model.save("model.mps.safetensors")
    state_dict = ttcompress.load("model.mps.safetensors").state_dict()

Importing this package is cheap: torch comes with the first function that needs it.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

_EXPORT = re.compile(r"^from (\S+) import (\w+) as \2$", re.MULTILINE)


@cache
def _homes() -> dict[str, str]:
    """The module that defines each public name, as `__init__.pyi` lists them for type checkers."""
    stub = Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")
    return {name: module for module, name in _EXPORT.findall(stub)}


def __getattr__(name: str) -> Any:
    if name == "__version__":  # even importlib.metadata is too slow for every --help
        value: Any = import_module("importlib.metadata").version(__name__)
    elif name == "__all__":
        value = sorted([*_homes(), "__version__"])
    elif not name.startswith("_") and name in _homes():
        value = getattr(import_module(_homes()[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__getattr__("__all__"))
