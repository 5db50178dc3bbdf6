"""Describes the model in a file: its named weights, its other content, and notes for the user."""

from __future__ import annotations

from collections import ChainMap, Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ttcompress.checkpoint.carried import Carrier, Json, NotCarried
from ttcompress.checkpoint.choice import choose, is_apart
from ttcompress.checkpoint.containers import Source
from ttcompress.checkpoint.names import canonical_names, unused_name
from ttcompress.checkpoint.pickle.builders import UnreadableTensor
from ttcompress.checkpoint.pickle.objects import PickledObject
from ttcompress.checkpoint.recurrent import recognise
from ttcompress.checkpoint.roles import Roles
from ttcompress.checkpoint.tensors import EXPANSION_ALLOWANCE, StoredTensor, check_tensor
from ttcompress.checkpoint.tree import Branch, Leaf, Place, Tree, is_module
from ttcompress.errors import CheckpointError
from ttcompress.model.weights import OtherTensor, RecurrentStack, Role, Weight
from ttcompress.system.safetensors import DTYPES, RESERVED
from ttcompress.system.text import clip, find_half_surrogate

MAX_NAMED_CLASSES = 8

MAX_REPEATS = 8
"""How many times the bytes of their storages the tensors may take: a flat storage is used once, or
twice where all of it is a tensor too.
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
    tree = Tree(source.root)
    found = tree.survey()
    chosen = choose(tree, found, key)
    apart = [one for one in found.state_dicts if is_apart(one, chosen)]
    tree.left_out = {id(branch.value) for branch in (*found.optimizers, *apart)}
    inside, source_paths = _name_inside(tree, chosen, source.own_names)
    loose = _name_loose(tree, chosen, inside) if chosen.place else {}
    source_paths |= {name: name for name in loose}
    _check_names((*source_paths, *source_paths.values()))
    stored = _check_tensors(inside | loose, source)
    all_names: defaultdict[StoredTensor, list[str]] = defaultdict(list)
    for name, tensor in stored.items():
        all_names[tensor].append(name)
    tied = {tensor: tuple(names) for tensor, names in all_names.items()}
    weights, stacks, remarks = _weights({name: stored[name] for name in inside}, tied)
    taken = {weight.name for weight in weights}
    others = tuple(
        OtherTensor(names[0], names, tensor.shape, tensor.dtype_name, tensor.bytes)
        for tensor, names in tied.items()
        if names[0] not in taken
    )
    carried, not_carried = _carry(tree, chosen, {t: names[0] for t, names in tied.items()})
    unusual = _describe(source, chosen, stored)
    omitted = _describe_omitted(found.optimizers, apart)
    notes = (*unusual, *omitted, *not_carried, *remarks)
    return Assembly(weights, others, stacks, source_paths, stored, carried, notes)


def _name_inside(
    tree: Tree, chosen: Branch, own_names: bool
) -> tuple[dict[str, Leaf], dict[str, str]]:
    """The state dict's tensors by the model's own names, and each name's place in the source."""
    keys: dict[str, tuple[Place, Leaf]] = {}
    for place, leaf in tree.tensors(chosen.value):
        keys[unused_name(".".join(place), keys)] = (place, leaf)
    names = tuple(keys) if own_names else canonical_names(tuple(keys))
    leaves, paths = {}, {}
    for name, (place, leaf) in zip(names, keys.values(), strict=True):
        leaves[name] = leaf
        paths[name] = ".".join((*chosen.place, *place))
    return leaves, paths


def _name_loose(tree: Tree, chosen: Branch, inside: Mapping[str, Leaf]) -> dict[str, Leaf]:
    """The tensors outside the state dict, by their places."""
    loose: dict[str, Leaf] = {}
    taken = ChainMap(loose, dict(inside))
    for place, leaf in tree.tensors(tree.root, besides=chosen.value):
        loose[unused_name(".".join(place), taken)] = leaf
    return loose


def _check_names(names: Iterable[str]) -> None:
    """Refuse names that no file can hold: a pickle's text may have half of a surrogate pair."""
    for name in names:
        if name == RESERVED:
            raise CheckpointError(
                f"a tensor is named {RESERVED}, which safetensors reserves. "
                "Rename the tensor and save the model again."
            )
        half = find_half_surrogate(name)
        if half is not None:
            raise CheckpointError(
                f"the name {clip(name)!r} is not valid text (half a character at {half}). "
                "Rename the tensor and save the model again."
            )


def _check_tensors(named: Mapping[str, Leaf], source: Source) -> dict[str, StoredTensor]:
    """Refuse tensors that cannot be read or written, or would fill any memory."""
    stored: dict[str, StoredTensor] = {}
    for name, leaf in named.items():
        if isinstance(leaf, UnreadableTensor):
            raise CheckpointError(f"{name}: is {leaf.why}.")
        try:
            check_tensor(leaf, source.storages[leaf.storage])
        except CheckpointError as error:
            raise error.at(name) from error
        if leaf.dtype not in DTYPES.values():
            raise CheckpointError(
                f"{name}: has type {leaf.dtype_name}, which safetensors cannot store. "
                "Save the model without it, or in another type."
            )
        stored[name] = leaf
    # Many windows on one storage could claim any amount of memory.
    claimed = sum(tensor.bytes for tensor in set(stored.values()))
    held = sum(source.storages[key].size for key in {t.storage for t in stored.values()})
    if claimed > MAX_REPEATS * held + EXPANSION_ALLOWANCE:
        raise CheckpointError(
            f"its tensors claim {claimed:,} bytes, over {MAX_REPEATS} times the {held:,} that are "
            "stored. If they really are that large, save them with .clone()."
        )
    return stored


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


def _carry(
    tree: Tree, chosen: Branch, names: Mapping[StoredTensor, str]
) -> tuple[Json, tuple[str, ...]]:
    """The content as typed JSON, and notes on what could not be carried over."""
    spine = set[int]()  # the values from the root down to the state dict
    for value in tree.path(chosen.place):
        spine.add(id(value))
        if isinstance(value, PickledObject):
            spine |= {id(value.state), id(value.pairs)}
    carrier = Carrier(tree, names, spine)
    try:
        return carrier.encode(tree.root), tuple(carrier.notes)
    except NotCarried as reason:
        flat = [
            [".".join(place), {"tensor": names[leaf]}]
            for place, leaf in tree.tensors(chosen.value)
            if isinstance(leaf, StoredTensor)
        ]
        return {"dict": flat}, (f"only the state dict is carried over: {reason}",)


def _describe(source: Source, chosen: Branch, stored: Mapping[str, StoredTensor]) -> Iterator[str]:
    """What is unusual about the file."""
    yield from source.notes
    if is_module(chosen.value):
        place = f"`{clip(chosen.key)}`" if chosen.place else "the file"
        yield (
            f"{place} is a whole module ({clip(str(chosen.value.cls))}); "
            "its tensors come back as a flat state dict"
        )
    if names := [clip(name) for name in source.unloaded if not name.startswith("__torch__.")]:
        more = len(names) - MAX_NAMED_CLASSES
        yield (
            f"classes read as data, not loaded: {', '.join(names[:MAX_NAMED_CLASSES])}"
            + (f", and {more} more" if more > 0 else "")
        )
    windows = Counter(tensor.storage for tensor in set(stored.values()))
    if shared := sum(count for count in windows.values() if count > 1):
        yield f"{shared} tensors are views of larger storages; each is kept separately"


def _describe_omitted(optimizers: Iterable[Branch], apart: Iterable[Branch]) -> Iterator[str]:
    """What is in the file but will not be in the result."""
    for one in optimizers:
        yield f"optimizer state is left out: `{clip(one.key)}` ({one.bytes / 1e6:.1f} MB)"
    for one in apart:
        yield (
            f"another state dict is left out: `{clip(one.key)}` ({one.weights} weights, "
            f"{one.bytes / 1e6:.1f} MB); compress it with --key {clip(one.key)}"
        )
