"""The state dicts found in a file and the user's key enter; the one to compress leaves."""

from __future__ import annotations

from typing import Any

from ttcompress.checkpoint.stored import StoredTensor
from ttcompress.checkpoint.tree import (
    Place,
    StateDict,
    Steps,
    Survey,
    children,
    tensors_below,
)
from ttcompress.errors import CheckpointError

WRAPPERS = frozenset(
    {"state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "params"}
)
"""Keys that say "the weights are below": loose matrices beside one leave the choice clear."""


def choose(root: Any, survey: Survey, key: str | None, steps: Steps) -> StateDict:
    """The state dict to compress.

    Raises:
        CheckpointError: none there; several and no key; a key that names none. The latter two list
            the state dicts there are.
    """
    if key is not None:
        return _by_key(root, survey, key, steps)
    found = survey.state_dicts
    if not found:
        raise CheckpointError(
            "holds no 2-D weight of floating-point numbers under a name, so nothing to compress. "
            "Give the file that the trained model was saved to."
        )
    named = [one for one in found if one.place and one.place[-1] in WRAPPERS]
    if len(named) == 1 and all(_is_above(one, named[0]) for one in found if one is not named[0]):
        return named[0]
    if len(found) > 1:
        raise CheckpointError(
            f"holds {len(found)} state dicts: {_listed(found)}. "
            f"Choose one, as in --key {found[0].key}."
        )
    return found[0]


def is_apart(one: StateDict, chosen: StateDict) -> bool:
    """Whether neither of two state dicts stands inside the other."""
    return not (_is_above(one, chosen) or _is_above(chosen, one)) and one.value is not chosen.value


def _is_above(one: StateDict, other: StateDict) -> bool:
    return other.place[: len(one.place)] == one.place


def _by_key(root: Any, survey: Survey, key: str, steps: Steps) -> StateDict:
    for found in survey.state_dicts:
        if found.key == key:
            return found
    place: Place = () if key == "." else tuple(key.split("."))
    value = root
    for step in place:
        value = next((child for name, child in children(value) if str(name) == step), None)
    leaves = [leaf for _, leaf in tensors_below(value, steps) if isinstance(leaf, StoredTensor)]
    weights = sum(leaf.is_weight for leaf in leaves)
    if not weights or not any(True for _ in children(value)):
        raise CheckpointError(
            f"nothing under the key {key!r} holds weights. State dicts are: "
            f"{_listed(survey.state_dicts) or 'none'}."
        )
    return StateDict(place, value, weights, sum(leaf.bytes for leaf in leaves))


def _listed(found: tuple[StateDict, ...]) -> str:
    return ", ".join(
        f"`{one.key}` ({one.weights} weights, {one.bytes / 1e6:.1f} MB)" for one in found[:12]
    ) + (", ..." if len(found) > 12 else "")
