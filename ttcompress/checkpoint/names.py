"""Gives tensors the model's own names, without what wrappers added, and no name twice."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence

from ttcompress.errors import CheckpointError
from ttcompress.system.text import clip

PARALLEL = "module."  # DataParallel, AveragedModel and their kin, around the whole model

_WRAPPER = re.compile(
    r"(?<![^.])(?:_orig_mod"  # torch.compile
    r"|_fsdp_wrapped_module|_fpw_module"  # fully sharded training, today's name and the first one
    r"|_checkpoint_wrapped_module"  # activation checkpointing
    r"|_forward_module)\."  # Lightning Fabric
)
"""What goes around any module, anywhere in a name."""

AVERAGES = "n_averaged"
"""The one tensor that `torch.optim.swa_utils.AveragedModel` keeps beside its `module.`."""

MAX_NAME, MAX_NAMESAKES = 1_000, 100
"""Characters in a tensor's name, and tensors of one name: far more than any model has."""


def canonical_names(keys: Sequence[str]) -> tuple[str, ...]:
    """Each key without what wrappers added, and without a `module.` in front of all of them.

    A `module.` further inside, or in front of only some keys, is the model's own. Where two keys
    would become one name, all keys stay as they are.

    Example:
        >>> canonical_names(["module.lstm._orig_mod.weight_hh_l0", "module.head.weight"])
        ('lstm.weight_hh_l0', 'head.weight')
    """
    names = [_WRAPPER.sub("", key) for key in keys]
    while names and all(len(name) > len(PARALLEL) and name.startswith(PARALLEL) for name in names):
        names = [name.removeprefix(PARALLEL) for name in names]
    return tuple(names) if len(set(names)) == len(names) else tuple(keys)


def names_inside(source_paths: Mapping[str, str]) -> tuple[str, ...]:
    """The names of the tensors in the state dict, in the file's order.

    A tensor outside the state dict is named by its place in the file; one inside is not.

    Example:
        >>> names_inside({"head.weight": "model.head.weight", "loss_history": "loss_history"})
        ('head.weight',)
    """
    moved = {
        name: _WRAPPER.sub("", path) != _WRAPPER.sub("", name)
        for name, path in source_paths.items()
    }
    nested = any(moved.values())
    return tuple(name for name in source_paths if moved[name] or not nested)


def unused_name(wanted: str, taken: Container[str]) -> str:
    """`wanted`, with underscores appended until the name is free.

    Raises:
        CheckpointError: the name is too long, or too many tensors share it.
    """
    if len(wanted) > MAX_NAME:
        raise CheckpointError(
            f"a tensor's name has {len(wanted):,} characters ({clip(wanted, 40)}...), but "
            f"at most {MAX_NAME:,} are allowed. Rename it and save the model again."
        )
    name = wanted
    for _ in range(MAX_NAMESAKES):
        if name not in taken:
            return name
        name += "_"
    raise CheckpointError(
        f"over {MAX_NAMESAKES} tensors share the name {clip(wanted)}. "
        "Rename them and save the model again."
    )
