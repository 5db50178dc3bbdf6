"""A container's value tree and the user's key enter; named weights, the rest, and notes leave."""

from __future__ import annotations

from collections import ChainMap, Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any

from ttcompress.checkpoint.carried import Carrier, Json, NotCarried
from ttcompress.checkpoint.choice import choose, is_apart
from ttcompress.checkpoint.containers.source import Source
from ttcompress.checkpoint.names import canonical_names, unused_name
from ttcompress.checkpoint.pickle.builders import Unreadable
from ttcompress.checkpoint.pickle.objects import PickledObject
from ttcompress.checkpoint.recurrent import recognise
from ttcompress.checkpoint.roles import Roles
from ttcompress.checkpoint.stored import EXPANSION_ALLOWANCE, StoredTensor, check_tensor
from ttcompress.checkpoint.tree import (
    Leaf,
    Place,
    StateDict,
    Steps,
    Survey,
    children,
    is_module,
    survey,
    tensors_below,
)
from ttcompress.errors import CheckpointError
from ttcompress.model.weights import OtherTensor, RecurrentStack, Role, Weight
from ttcompress.system.safetensors import DTYPES, RESERVED
from ttcompress.system.text import clip

MAX_NAMED_CLASSES = 8

MAX_REPEATS = 8
"""How many times over the tensors may show the bytes of their storages; a flat storage is shown
once, or twice where the whole of it is a tensor too.
"""


@dataclass(frozen=True)
class Assembly:
    """What a checkpoint says about itself, with its tensors by every name they have."""

    weights: tuple[Weight, ...]
    others: tuple[OtherTensor, ...]
    stacks: tuple[RecurrentStack, ...]
    source_paths: Mapping[str, str]
    stored: Mapping[str, StoredTensor]
    carried: Json
    notes: tuple[str, ...]


def assemble(source: Source, key: str | None) -> Assembly:
    """Choose the state dict, name its tensors, and sort them into weights and the rest.

    Raises:
        CheckpointError: the choice is unclear, a tensor cannot be read, or shapes do not fit.
    """
    steps = Steps()
    found = survey(source.root, steps)
    chosen = choose(source.root, found, key, steps)
    apart = tuple(one for one in found.state_dicts if is_apart(one, chosen))
    left_out = {id(value) for _, value in found.optimizers} | {id(one.value) for one in apart}
    inside, source_paths = _name_inside(chosen, left_out, steps)
    named = {**inside, **_name_loose(source.root, chosen, left_out, inside, steps)}
    source_paths |= {name: name for name in named.keys() - inside.keys()}
    _check_names(named)
    _check_text([*named, *source_paths.values()])
    stored = {name: _readable(name, leaf, source) for name, leaf in named.items()}
    _check_sum(stored, source)
    tied = _tied(stored)
    weights, stacks, remarks = _weights({name: stored[name] for name in inside}, tied)
    taken = {weight.name for weight in weights}
    carried, not_carried = _carry(source.root, chosen, tied, left_out, steps)
    return Assembly(
        weights=weights,
        others=tuple(_other(t, names) for t, names in tied.items() if names[0] not in taken),
        stacks=stacks,
        source_paths=source_paths,
        stored=stored,
        carried=carried,
        notes=(
            *_describe(source, chosen, stored),
            *_omitted(found, apart, steps),
            *not_carried,
            *remarks,
        ),
    )


def _tied(stored: Mapping[str, StoredTensor]) -> dict[StoredTensor, tuple[str, ...]]:
    """All names of each tensor."""
    found: defaultdict[StoredTensor, list[str]] = defaultdict(list)
    for name, tensor in stored.items():
        found[tensor].append(name)
    return {tensor: tuple(names) for tensor, names in found.items()}


def _name_inside(
    chosen: StateDict, left_out: Set[int], steps: Steps
) -> tuple[dict[str, Leaf], dict[str, str]]:
    """The state dict's tensors by the model's own names, and each name's place in the source."""
    found = list(tensors_below(chosen.value, steps, left_out))
    keys: dict[str, tuple[Place, Leaf]] = {}
    for place, leaf in found:
        keys[unused_name(".".join(place), keys)] = (place, leaf)
    names = canonical_names(tuple(keys))
    leaves = {name: leaf for name, (_, leaf) in zip(names, keys.values(), strict=True)}
    paths = {
        name: ".".join((*chosen.place, *place))
        for name, (place, _) in zip(names, keys.values(), strict=True)
    }
    return leaves, paths


def _name_loose(
    root: Any, chosen: StateDict, left_out: Set[int], inside: Mapping[str, Leaf], steps: Steps
) -> dict[str, Leaf]:
    """The tensors outside the state dict, by their places."""
    if not chosen.place:
        return {}
    loose: dict[str, Leaf] = {}
    taken = ChainMap[str, Leaf](loose, dict(inside))
    for place, leaf in tensors_below(root, steps, left_out | {id(chosen.value)}):
        loose[unused_name(".".join(place), taken)] = leaf
    return loose


def _check_names(names: Collection[str]) -> None:
    if RESERVED in names:
        raise CheckpointError(
            f"a tensor has the name {RESERVED}, which safetensors keeps for itself. "
            "Rename the tensor, and save the model again."
        )


def _check_text(names: Iterable[str]) -> None:
    """A pickle's text can hold half of a surrogate pair, and no file or terminal takes that."""
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise CheckpointError(
                f"the name {clip(name)!r} is no text (half of a character at {error.start}). "
                "Rename the tensor, and save the model again."
            ) from error


def _check_sum(stored: Mapping[str, StoredTensor], source: Source) -> None:
    """Many windows on one storage would stand for any amount of memory."""
    claimed = sum(tensor.bytes for tensor in set(stored.values()))
    held = sum(source.storages[key].size for key in {t.storage for t in stored.values()})
    if claimed > MAX_REPEATS * held + EXPANSION_ALLOWANCE:
        raise CheckpointError(
            f"its tensors would take {claimed:,} bytes together, over {MAX_REPEATS} times the "
            f"{held:,} that they share. Save them with .clone() if they really are that large."
        )


def _readable(name: str, leaf: Leaf, source: Source) -> StoredTensor:
    if isinstance(leaf, Unreadable):
        raise CheckpointError(f"{name}: is {leaf.why}.")
    try:
        check_tensor(leaf, source.storages[leaf.storage])
    except CheckpointError as error:
        raise error.at(name) from error
    if leaf.dtype not in DTYPES.values():
        raise CheckpointError(
            f"{name}: is of type {leaf.dtype_name}, and safetensors, which artifacts are, has no "
            "such type. Save the model without it, or in another type."
        )
    return leaf


def _weights(
    inside: Mapping[str, StoredTensor], tied: Mapping[StoredTensor, tuple[str, ...]]
) -> tuple[tuple[Weight, ...], tuple[RecurrentStack, ...], tuple[str, ...]]:
    """The state dict's matrices with their roles, and the recurrent layers they make."""
    matrices = {
        name: (tensor.shape[0], tensor.shape[1])
        for name, tensor in inside.items()
        if tensor.is_weight
    }
    vectors = {name: tensor.shape[0] for name, tensor in inside.items() if tensor.is_vector}
    recurrent = recognise(matrices, vectors, inside.keys())
    roles = Roles(matrices, vectors, recurrent.stacks)
    weights = []
    for name, shape in matrices.items():
        names = tied[inside[name]]
        if names[0] != name:
            continue
        known = [other for other in names if other in matrices]
        gates = [recurrent.gates[other] for other in known if other in recurrent.gates]
        role: Role = "recurrent" if gates else roles.of(known)
        dtype = inside[name].dtype_name
        weights.append(Weight(name, names, role, shape, dtype, max(gates, default=1)))
    return tuple(weights), recurrent.stacks, recurrent.notes


def _other(tensor: StoredTensor, names: tuple[str, ...]) -> OtherTensor:
    return OtherTensor(names[0], names, tensor.shape, tensor.dtype_name, tensor.bytes)


def _carry(
    root: Any,
    chosen: StateDict,
    tied: Mapping[StoredTensor, tuple[str, ...]],
    left_out: Set[int],
    steps: Steps,
) -> tuple[Json, tuple[str, ...]]:
    """The whole content as typed JSON; where even its outline cannot be kept, the state dict's."""
    names = {tensor: tied_names[0] for tensor, tied_names in tied.items()}
    try:
        carrier = Carrier(names, left_out, _spine(root, chosen.place), steps)
        return carrier.encode(root), tuple(carrier.notes)
    except NotCarried as reason:
        flat = [[key, {"tensor": names[leaf]}] for key, leaf in _flat(chosen, left_out, steps)]
        return {"dict": flat}, (f"only the state dict is carried along: {reason}",)


def _flat(
    chosen: StateDict, left_out: Set[int], steps: Steps
) -> Iterator[tuple[str, StoredTensor]]:
    for place, leaf in tensors_below(chosen.value, steps, left_out):
        if isinstance(leaf, StoredTensor):
            yield ".".join(place), leaf


def _spine(root: Any, place: Place) -> set[int]:
    """The ids of the values from the root down to the state dict, it included."""
    spine, value = set[int](), root
    for step in (*place, None):
        spine.add(id(value))
        if isinstance(value, PickledObject):
            spine |= {id(value.state), id(value.pairs)}
        value = next((child for key, child in children(value) if str(key) == step), None)
    return spine


def _describe(
    source: Source, chosen: StateDict, stored: Mapping[str, StoredTensor]
) -> Iterator[str]:
    """What is unusual about the file."""
    if is_module(chosen.value):
        place = f"`{clip(chosen.key)}`" if chosen.place else "the file"
        yield (
            f"{place} is a whole module ({clip(str(chosen.value.cls))}); "
            "its tensors come back as a flat state dict"
        )
    if names := [clip(name) for name in source.unloaded if not name.startswith("__torch__.")]:
        more = len(names) - MAX_NAMED_CLASSES
        yield (
            f"classes read as data and not loaded: {', '.join(names[:MAX_NAMED_CLASSES])}"
            + (f", and {more} more" if more > 0 else "")
        )
    windows = Counter(tensor.storage for tensor in set(stored.values()))
    if shared := sum(count for count in windows.values() if count > 1):
        yield f"{shared} tensors are views of larger storages; each is kept on its own"


def _omitted(found: Survey, apart: Collection[StateDict], steps: Steps) -> Iterator[str]:
    """What is in the file and will not be in the result."""
    for place, value in found.optimizers:
        leaves = {leaf for _, leaf in tensors_below(value, steps) if isinstance(leaf, StoredTensor)}
        size = sum(leaf.bytes for leaf in leaves)
        yield f"optimizer state is left out: `{clip('.'.join(place))}` ({size / 1e6:.1f} MB)"
    for one in apart:
        yield (
            f"another state dict is left out: `{clip(one.key)}` ({one.weights} weights, "
            f"{one.bytes / 1e6:.1f} MB); compress it with --key {clip(one.key)}"
        )
