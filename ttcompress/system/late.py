"""torch and numpy, imported on first use.

Recipes and plans read the facts of a store (name, bytes, noise) and must not wait for torch; its
arithmetic needs torch. So that a store can still be one class in one file, its module takes `torch`
from here: reading an attribute imports the real module. Type checkers see the real module.

A function that torch traces (`Store.widen`) must use methods of tensors only, not these names:
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
            found = getattr(import_module(self._name), name)
            setattr(self, name, found)  # so that the next use is a plain look-up
            return found

    np, torch = _Late("numpy"), _Late("torch")

__all__ = ["np", "torch"]
