"""Describes the model in a file: its named weights, its other content, and notes for the user."""

from __future__ import annotations

import re
from collections import ChainMap, Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ttcompress.checkpoint.carried import Carrier, Json, NotCarried
from ttcompress.checkpoint.choice import choose, holds_any, is_apart
from ttcompress.checkpoint.containers import Source
from ttcompress.checkpoint.evidence import Evidence
from ttcompress.checkpoint.names import AVERAGES, PARALLEL, canonical_names, unused_name
from ttcompress.checkpoint.pickle.builders import QUANTISED, UnreadableTensor
from ttcompress.checkpoint.pickle.objects import PickledObject
from ttcompress.checkpoint.recurrent import is_recurrent_name, recognise
from ttcompress.checkpoint.reparametrised import (
    RESTORED_PLAIN,
    ComputedBytes,
    fold,
    is_parametrized,
    stored_parts,
)
from ttcompress.checkpoint.tensors import (
    EXPANSION_ALLOWANCE,
    FLOATS,
    Bytes,
    StoredTensor,
    check_tensor,
)
from ttcompress.checkpoint.tree import Branch, Leaf, Place, Tree, is_module
from ttcompress.errors import CheckpointError
from ttcompress.model.report import ANOTHER_MODEL, OPTIMIZER, UNUSED, LeftOut
from ttcompress.model.weights import OtherTensor, RecurrentStack, Role, Weight
from ttcompress.system.safetensors import RESERVED, can_hold
from ttcompress.system.text import clip, find_half_surrogate

MAX_NAMED = 8

TORCH_NN = "torch.nn.modules."
"""In the names of the modules that define torch's layers."""

_PACKED = re.compile(r"\._(all_weight_values|packed_)\w*(\..*)?$")
_PACKED_RECURRENT = re.compile(r"\._(all_weight_values\.|packed_weight_[ih]h$)")
"""Where `torch.ao.nn.quantized` keeps the weights of a layer."""

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
    storages: Mapping[str, Bytes]
    carried: Json
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]


def assemble(source: Source, key: str | None) -> Assembly:
    """Choose the state dicts, name their tensors, and sort them into weights and the rest.

    The tensors of several state dicts are named by their keys: "netG.lstm.weight_hh_l0".

    Raises:
        CheckpointError: the choice is unclear, a tensor cannot be read, or shapes do not fit.
    """
    tree = Tree(source.root)
    found = tree.survey()
    if not found.state_dicts:
        _refuse_without_weights(tree, source)
    chosen = choose(tree, found, key)
    storages = source.storages
    for one in chosen:
        storages = fold(one.value, storages)
    source = replace(source, storages=storages)
    unwanted = {
        ANOTHER_MODEL: [one for one in found.state_dicts if is_apart(one, chosen)],
        OPTIMIZER: [one for one in found.optimizers if not holds_any(one, chosen)],
    }
    tree.left_out = {id(branch.value) for branches in unwanted.values() for branch in branches}
    inside, source_paths, owners = _name_inside(tree, chosen, source.own_names)
    loose = _name_loose(tree, chosen, inside)
    source_paths |= {name: name for name in loose}
    _check_names((*source_paths, *source_paths.values()))
    stored = _check_tensors(inside | loose, source)
    all_names: defaultdict[StoredTensor, list[str]] = defaultdict(list)
    for name, tensor in stored.items():
        all_names[tensor].append(name)
    tied = {tensor: tuple(names) for tensor, names in all_names.items()}
    for name in inside:
        tensor = stored[name]
        if is_recurrent_name(name) and len(tensor.shape) == 2 and tensor.dtype not in FLOATS:
            raise _unread_type(name, tensor)
    weights, stacks, remarks = _weights({name: stored[name] for name in inside}, tied, owners)
    taken = {weight.name for weight in weights}
    others = tuple(
        OtherTensor(names[0], names, tensor.shape, tensor.dtype_name, tensor.bytes)
        for tensor, names in tied.items()
        if names[0] not in taken
    )
    carried, not_carried = _carry(tree, chosen, {t: names[0] for t, names in tied.items()})
    left_out = (*_left_out(tree, unwanted, source, tied.keys()), *not_carried)
    notes = (*_describe(source, chosen, stored), *remarks)
    return Assembly(
        weights, others, stacks, source_paths, stored, source.storages, carried, left_out, notes
    )


def _refuse_without_weights(tree: Tree, source: Source) -> None:
    """Refuse a file whose weights are there, but in a form that cannot be read."""
    named = {".".join(place): leaf for place, leaf in tree.tensors(tree.root)}
    _refuse_quantised(named)
    for name, leaf in named.items():
        if isinstance(leaf, StoredTensor) and leaf.is_quantised:
            raise _unread_type(name, leaf)
    if source.without_weights:
        raise CheckpointError(source.without_weights)


def _unread_type(name: str, tensor: StoredTensor) -> CheckpointError:
    """The error for a weight whose number type is not among those of weights."""
    cure = (
        "Save the model in one of those types, multiplied by its scales if it has any."
        if tensor.dtype.is_floating_point
        else "Compress the float model, from before it was quantised."
    )
    kinds = sorted(str(dtype).removeprefix("torch.") for dtype in FLOATS)
    return CheckpointError(
        f"{name}: is {tensor.dtype_name}, but weights have one of the types {', '.join(kinds)}. "
        f"{cure}"
    )


def _name_inside(
    tree: Tree, chosen: Sequence[Branch], own_names: bool
) -> tuple[dict[str, Leaf], dict[str, str], dict[str, PickledObject]]:
    """The tensors to compress by the model's own names, and each name's place in the source.

    In a whole module, also the module that holds each tensor.
    """
    keys: dict[str, tuple[Place, Leaf]] = {}
    for name, place, leaf in _tensors_inside(tree, chosen):
        keys[unused_name(name, keys)] = (place, leaf)
    averages = None
    if not own_names and all(map(_is_averaged, keys)):
        averages = keys.pop(AVERAGES, None)
    names = tuple(keys) if own_names else canonical_names(tuple(keys))
    modules = {
        (*one.place, *below): module for one in chosen for below, module in tree.modules(one.value)
    }
    leaves, paths, owners = {}, {}, {}
    for name, (place, leaf) in zip(names, keys.values(), strict=True):
        leaves[name] = leaf
        paths[name] = ".".join(place)
        if place[:-1] in modules:
            owners[name] = modules[place[:-1]]
    if averages is not None:
        # How many models the average is of is not the model's: it is named by its place, as what
        # is outside the state dict is.
        place, leaf = averages
        name = unused_name(".".join(place), leaves)
        leaves[name], paths[name] = leaf, name
    return leaves, paths, owners


def _is_averaged(key: str) -> bool:
    return key == AVERAGES or key.startswith(PARALLEL)


def _tensors_inside(tree: Tree, chosen: Sequence[Branch]) -> Iterator[tuple[str, Place, Leaf]]:
    """Every tensor of the state dicts: its key, which begins with theirs if they are several,
    its place in the file, and the tensor.
    """
    for one in chosen:
        for below, leaf in tree.tensors(one.value):
            place = (*one.place, *below)
            yield ".".join(place if len(chosen) > 1 else below), place, leaf


def _name_loose(
    tree: Tree, chosen: Sequence[Branch], inside: Mapping[str, Leaf]
) -> dict[str, Leaf]:
    """The tensors outside the state dicts, by their places."""
    loose: dict[str, Leaf] = {}
    taken = ChainMap(loose, dict(inside))
    outside = tree.tensors(tree.root, besides=[one.value for one in chosen])
    for place, leaf in outside:
        if leaf != QUANTISED:  # which is named as not carried over
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
    _refuse_quantised(named)
    stored: dict[str, StoredTensor] = {}
    for name, leaf in named.items():
        if isinstance(leaf, UnreadableTensor):
            raise CheckpointError(f"{name}: is {leaf.why}.")
        try:
            check_tensor(leaf, source.storages[leaf.storage])
        except CheckpointError as error:
            raise error.at(name) from error
        if not can_hold(leaf.dtype):
            raise CheckpointError(
                f"{name}: has type {leaf.dtype_name}, which safetensors cannot store. "
                "Save the model without it, or in another type."
            )
        stored[name] = leaf
    # Many windows on one storage could claim any amount of memory.
    claimed = sum(tensor.bytes for tensor in set(stored.values()))
    used = {part.storage for t in stored.values() for part in stored_parts(t, source.storages)}
    held = sum(source.storages[key].size for key in used)
    if claimed > MAX_REPEATS * held + EXPANSION_ALLOWANCE:
        raise CheckpointError(
            f"its tensors claim {claimed:,} bytes, over {MAX_REPEATS} times the {held:,} that are "
            "stored. If they really are that large, save them with .clone()."
        )
    return stored


def _refuse_quantised(named: Mapping[str, Leaf]) -> None:
    """Refuse quantised layers, all named: without them, what is restored is not the model."""
    layers: dict[str, str] = {}
    for name in (name for name, leaf in named.items() if leaf == QUANTISED):
        kind = " (recurrent)" if _PACKED_RECURRENT.search(name) else ""
        layers[_PACKED.sub("", name)] = kind
    if layers:
        raise CheckpointError(
            f"{_list([name + kind for name, kind in layers.items()])}: the weights are quantised, "
            "in a form that only torch's own kernels read. Compress the float model, from before "
            "it was quantised."
        )


def _weights(
    inside: Mapping[str, StoredTensor],
    tied: Mapping[StoredTensor, tuple[str, ...]],
    owners: Mapping[str, PickledObject],
) -> tuple[tuple[Weight, ...], tuple[RecurrentStack, ...], tuple[str, ...]]:
    """The state dict's matrices with their roles, and the recurrent layers they make."""
    matrices = {
        name: (tensor.shape[0], tensor.shape[1])
        for name, tensor in inside.items()
        if tensor.is_weight and not is_parametrized(name)
    }
    vectors = {name: tensor.shape[0] for name, tensor in inside.items() if tensor.is_vector}
    recurrent = recognise(matrices, vectors, inside.keys(), owners)
    classes = {n: owner.cls.name for n, owner in owners.items() if TORCH_NN in owner.cls.module}
    evidence = Evidence(matrices, vectors, recurrent.stacks, classes)
    weights = []
    for name, shape in matrices.items():
        names = tied[inside[name]]
        if names[0] != name:
            continue
        known = [other for other in names if other in matrices]
        gates = [recurrent.gates[other] for other in known if other in recurrent.gates]
        role: Role = "recurrent" if gates else evidence.role(known)
        dtype = inside[name].dtype_name
        weights.append(Weight(name, names, role, shape, dtype, max(gates, default=1)))
    return tuple(weights), recurrent.stacks, recurrent.notes


def _carry(
    tree: Tree, chosen: Sequence[Branch], names: Mapping[StoredTensor, str]
) -> tuple[Json, list[LeftOut]]:
    """The content as typed JSON, and what could not be carried over."""
    spine = set[int]()  # the values from the root down to the state dicts
    for value in (value for one in chosen for value in tree.path(one.place)):
        spine.add(id(value))
        if isinstance(value, PickledObject):
            spine |= {id(value.state), id(value.pairs)}
    carrier = Carrier(tree, names, spine)
    try:
        return carrier.encode(tree.root), [
            LeftOut(key, 0, 0, f"not carried over: {reason}") for key, reason in carrier.dropped
        ]
    except NotCarried as reason:
        flat = [
            [name, {"tensor": names[leaf]}]
            for name, _, leaf in _tensors_inside(tree, chosen)
            if isinstance(leaf, StoredTensor)
        ]
        why = f"everything outside the state dict is not carried over: {reason}"
        return {"dict": flat}, [LeftOut(".", 0, 0, why)]


def _describe(
    source: Source, chosen: Sequence[Branch], stored: Mapping[str, StoredTensor]
) -> Iterator[str]:
    """What is unusual about the file."""
    yield from source.notes
    for one in chosen:
        if is_module(one.value):
            place = f"`{clip(one.key)}`" if one.place else "the file"
            yield (
                f"{place} is a whole module ({clip(str(one.value.cls))}); "
                "its tensors come back as a flat state dict"
            )
    if names := [name for name in source.unloaded if not name.startswith("__torch__.")]:
        yield f"classes read as data, not loaded: {_list(names)}"
    yield from _describe_computed(source, stored)
    if few_bits := [name for name, tensor in stored.items() if tensor.is_quantised]:
        yield f"matrices in 8 bits are kept as they are: {_list(few_bits)}"
    windows = Counter(tensor.storage for tensor in set(stored.values()))
    if shared := sum(count for count in windows.values() if count > 1):
        yield f"{shared} tensors are views of larger storages; each is kept separately"


def _left_out(
    tree: Tree,
    unwanted: Mapping[str, Iterable[Branch]],
    source: Source,
    kept: Iterable[StoredTensor],
) -> Iterator[LeftOut]:
    """What is in the file but will not be in the result, each tensor counted once."""
    unused = {
        key: storage.size
        for key, storage in source.storages.items()
        if not isinstance(storage, ComputedBytes)
    }
    counted = {part for tensor in kept for part in stored_parts(tensor, source.storages)}
    for why, branches in unwanted.items():
        for one in branches:
            leaves = {leaf for _, leaf in tree.tensors(one.value)}
            lost = {leaf for leaf in leaves if isinstance(leaf, StoredTensor)} - counted
            counted |= lost
            # A shape may claim more than is stored, and was not checked as those of the model are.
            size = sum(min(leaf.bytes, unused.get(leaf.storage, 0)) for leaf in lost)
            yield LeftOut(clip(one.key), len(leaves), size, why)
    # torch.save writes the whole storage of a tensor, even if the tensor is a small view of it.
    for leaf in counted:
        if leaf.storage in unused:
            unused[leaf.storage] -= leaf.bytes
    if rest := sum(size for size in unused.values() if size > 0):
        yield LeftOut(".", 0, rest, UNUSED)


def _describe_computed(source: Source, stored: Mapping[str, StoredTensor]) -> Iterator[str]:
    """What was computed from other tensors, and what could not be."""
    kinds: dict[str, list[str]] = {}
    for name, tensor in stored.items():
        held = source.storages.get(tensor.storage)
        if isinstance(held, ComputedBytes):
            kinds.setdefault(" and ".join(dict.fromkeys(held.kinds())), []).append(name)
    for kind, names in kinds.items():
        yield (
            f"under {kind}, read as the weight that the module computes and {RESTORED_PLAIN}: "
            f"{_list(names)}"
        )
    if unknown := [name for name in stored if is_parametrized(name)]:
        yield (
            "kept as they are, because the file does not say how the module computes a weight from "
            f"them (torch.nn.utils.parametrize.remove_parametrizations before saving makes it one "
            f"to compress): {_list(unknown)}"
        )


def _list(names: Sequence[str]) -> str:
    more = len(names) - MAX_NAMED
    return ", ".join(map(clip, names[:MAX_NAMED])) + (f", and {more} more" if more > 0 else "")
