"""Lists every target by its name; a new one is added here."""

from __future__ import annotations

from ttcompress.errors import RecipeError
from ttcompress.targets.c.target import C
from ttcompress.targets.onnx.target import Onnx
from ttcompress.targets.target import Target

TARGETS: dict[str, Target] = {target.name: target for target in (Onnx(), C())}

DEFAULT = Onnx.name


def find_target(name: str) -> Target:
    """Find a target by its name.

    Raises:
        RecipeError: there is no such target.
    """
    if name not in TARGETS:
        raise RecipeError(f"target: expected {' or '.join(TARGETS)}, got {name!r}.")
    return TARGETS[name]
