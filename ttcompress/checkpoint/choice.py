"""Chooses the state dict to compress among those found in a file."""

from __future__ import annotations

from collections.abc import Sequence

from ttcompress.checkpoint.tree import Branch, Survey, Tree, children
from ttcompress.errors import CheckpointError

WRAPPERS = frozenset(
    {"state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "params"}
)
"""Keys that say "the weights are below": loose matrices beside one leave the choice clear."""


def choose(tree: Tree, survey: Survey, key: str | None) -> Branch:
    """The state dict to compress.

    Raises:
        CheckpointError: none there; several and no key; a key that names none. The latter two list
            the state dicts there are.
    """
    found = survey.state_dicts
    if key is not None:
        return next((one for one in found if one.key == key), None) or _find(tree, survey, key)
    if not found:
        raise CheckpointError(
            "holds no 2-D weight of floating-point numbers under a name, so nothing to compress. "
            "Give the file that the trained model was saved to."
        )
    named = [one for one in found if one.place and one.place[-1] in WRAPPERS]
    if len(named) == 1 and all(one.is_above(named[0]) for one in found if one is not named[0]):
        return named[0]
    if len(found) > 1:
        raise CheckpointError(
            f"holds {len(found)} state dicts: {_list(found)}. "
            f"Choose one, as in --key {found[0].key}."
        )
    return found[0]


def is_apart(one: Branch, chosen: Branch) -> bool:
    """Whether neither of two state dicts stands inside the other."""
    return not (one.is_above(chosen) or chosen.is_above(one)) and one.value is not chosen.value


def _find(tree: Tree, survey: Survey, key: str) -> Branch:
    """What stands at a key that names no state dict by itself, but perhaps what is above some."""
    place = () if key == "." else tuple(key.split("."))
    value = tree.path(place)[-1]
    branch = Branch.of(place, value, (leaf for _, leaf in tree.tensors(value)))
    if not branch.weights or not any(True for _ in children(value)):
        raise CheckpointError(
            f"nothing under the key {key!r} holds weights. State dicts are: "
            f"{_list(survey.state_dicts) or 'none'}."
        )
    return branch


def _list(found: Sequence[Branch]) -> str:
    return ", ".join(
        f"`{one.key}` ({one.weights} weights, {one.bytes / 1e6:.1f} MB)" for one in found[:12]
    ) + (", ..." if len(found) > 12 else "")
