"""torch and numpy, imported when they are first used.

A store's facts (name, bytes, noise) serve recipes and plans, which must not wait for torch; its
arithmetic needs torch. So that a store can still be one class in one file, its module takes `torch`
from here: an attribute of it imports the real module. For type checkers it is the real module.

A function that torch traces (`Store.widen`) must not use these names, only methods of tensors:
the tracer does not follow an import.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch
else:

    class _Late:
        """Stands for a module that is not imported yet."""

        def __init__(self, name: str) -> None:
            self._name = name

        def __getattr__(self, name: str) -> Any:
            return getattr(import_module(self._name), name)

    np, torch = _Late("numpy"), _Late("torch")

__all__ = ["np", "torch"]
