"""Chooses the state dict to compress among those found in a file."""

from __future__ import annotations

from collections.abc import Sequence

from ttcompress.checkpoint.tree import Branch, Survey, Tree, children
from ttcompress.errors import CheckpointError

WRAPPERS = frozenset(
    {"state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "params"}
)
"""Keys that mean "the weights are below": matrices outside one do not make the choice unclear."""


def choose(tree: Tree, survey: Survey, key: str | None) -> Branch:
    """The state dict to compress.

    Raises:
        CheckpointError: there is none; there are several but no key; or the key names none. The
            last two list the state dicts.
    """
    found = survey.state_dicts
    if key is not None:
        return next((one for one in found if one.key == key), None) or _find(tree, survey, key)
    if not found:
        raise CheckpointError(
            "holds no named 2-D tensor of floating-point numbers, so there is nothing to compress. "
            "Give the file that the trained model was saved to."
        )
    named = [one for one in found if one.place and one.place[-1] in WRAPPERS]
    if len(named) == 1 and all(one.is_above(named[0]) for one in found if one is not named[0]):
        return named[0]
    if len(found) > 1:
        raise CheckpointError(
            f"holds {len(found)} state dicts: {_list(found)}. "
            f"Choose one, for example with --key {found[0].key}."
        )
    return found[0]


def is_apart(one: Branch, chosen: Branch) -> bool:
    """Whether neither of two state dicts is inside the other."""
    return not (one.is_above(chosen) or chosen.is_above(one)) and one.value is not chosen.value


def _find(tree: Tree, survey: Survey, key: str) -> Branch:
    """The value at a key that is not a state dict itself, but perhaps contains some."""
    place = () if key == "." else tuple(key.split("."))
    value = tree.path(place)[-1]
    branch = Branch.of(place, value, (leaf for _, leaf in tree.tensors(value)))
    if not branch.weights or not any(True for _ in children(value)):
        raise CheckpointError(
            f"there are no weights under the key {key!r}. The state dicts are: "
            f"{_list(survey.state_dicts) or 'none'}."
        )
    return branch


def _list(found: Sequence[Branch]) -> str:
    return ", ".join(
        f"`{one.key}` ({one.weights} weights, {one.bytes / 1e6:.1f} MB)" for one in found[:12]
    ) + (", ..." if len(found) > 12 else "")
