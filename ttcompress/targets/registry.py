"""Every target by its name: the one place that lists them."""

from __future__ import annotations

from ttcompress.errors import RecipeError
from ttcompress.targets.onnx.target import Onnx
from ttcompress.targets.target import Target

TARGETS: dict[str, Target] = {target.name: target for target in (Onnx(),)}

DEFAULT = Onnx.name


def find_target(name: str) -> Target:
    """The target of a name.

    Raises:
        RecipeError: there is none.
    """
    if name not in TARGETS:
        raise RecipeError(f"target: expected {' or '.join(TARGETS)}, got {name!r}.")
    return TARGETS[name]
