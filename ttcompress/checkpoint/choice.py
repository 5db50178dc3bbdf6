"""Chooses the state dicts to compress among those found in a file: `choose`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ttcompress.checkpoint.tree import Branch, Survey, Tree, children
from ttcompress.errors import CheckpointError

WRAPPERS = frozenset(
    {"state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "params"}
)
"""Keys that mean "the weights are below": matrices outside one do not make the choice unclear."""

ALL = "all"
"""The key that takes every state dict, unless one of them is called that."""


def choose(tree: Tree, survey: Survey, key: str | None) -> tuple[Branch, ...]:
    """The state dicts to compress: one, or those that a key with commas or `all` names.

    Raises:
        CheckpointError: there is none; there are several but no key; or the key names none. The
            last two list the state dicts.
    """
    found = survey.state_dicts
    if key is not None:
        return _named(tree, survey, key)
    if not found:
        raise CheckpointError(
            "holds no named 2-D tensor of floating-point numbers, so there is nothing to compress. "
            "Give the file that the trained model was saved to."
        )
    named = [one for one in found if one.place and one.place[-1] in WRAPPERS]
    if len(named) == 1 and all(one.is_above(named[0]) for one in found if one is not named[0]):
        return (named[0],)
    if len(found) > 1:
        first, *more = (one.key for one in found if one.place)
        some = f", some with --key {first},{more[0]}" if more else ""
        raise CheckpointError(
            f"holds {len(found)} state dicts: {_list(found)}. Choose one with --key {first}"
            f"{some}, or all with --key {ALL}."
        )
    return found


def is_apart(one: Branch, chosen: Sequence[Branch]) -> bool:
    """Whether a value is neither inside nor around any of the chosen state dicts."""
    return not holds_any(one, chosen) and not any(other.is_above(one) for other in chosen)


def holds_any(one: Branch, chosen: Sequence[Branch]) -> bool:
    """Whether a value is one of the chosen state dicts, or around one."""
    return any(one.is_above(other) or one.value is other.value for other in chosen)


def _named(tree: Tree, survey: Survey, key: str) -> tuple[Branch, ...]:
    """The state dicts of a key; one whose own name is `all`, or has a comma, comes first."""
    alone = _find(tree, survey, key)
    if alone is not None:
        return (alone,)
    if key == ALL and survey.state_dicts:
        return tuple(_outermost(survey.state_dicts))
    parts = [part.strip() for part in key.split(",")]
    found = {part: _find(tree, survey, part) for part in parts}
    for part, branch in found.items():
        if branch is None:
            raise CheckpointError(
                f"there are no weights under the key {part!r}. The state dicts are: "
                f"{_list(survey.state_dicts) or 'none'}."
            )
    return tuple(_outermost([branch for branch in found.values() if branch is not None]))


def _outermost(branches: Sequence[Branch]) -> Iterator[Branch]:
    """Those that are not inside another one, nor the same value as an earlier one."""
    seen: set[int] = set()
    for one in branches:
        around = (other for other in branches if other is not one and other.is_above(one))
        if id(one.value) not in seen and not any(around):
            seen.add(id(one.value))
            yield one


def _find(tree: Tree, survey: Survey, key: str) -> Branch | None:
    """The value at a key: a state dict, or something that contains some; None without weights."""
    for one in survey.state_dicts:
        if one.key == key:
            return one
    place = () if key == "." else tuple(key.split("."))
    value = tree.path(place)[-1]
    branch = Branch.of(place, value, (leaf for _, leaf in tree.tensors(value)))
    return branch if branch.weights and any(True for _ in children(value)) else None


def _list(found: Sequence[Branch]) -> str:
    return ", ".join(
        f"`{one.key}` ({one.weights} weights, {one.bytes / 1e6:.1f} MB)" for one in found[:12]
    ) + (", ..." if len(found) > 12 else "")
