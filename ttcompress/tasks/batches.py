"""Runs a user's module on a batch in whatever form the user's loader gives it: `run_batch`."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import Parameter, signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils import _pytree as pytree

from ttcompress.errors import RecipeError

NO_BATCH = "Give batches that the module takes, or a task whose `forward` calls it as needed."
"""What to do where a module fails on a batch."""

_PLACED = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


def run_batch(module: nn.Module, batch: Any) -> Any:
    """Call a module with what it needs of a batch, on the module's device.

    A mapping, as Hugging Face's collators make, gives arguments by name: those that `forward`
    takes. A tuple or list gives the first ones, as many as `forward` requires, so that labels
    behind the inputs are left out. Anything else is the only argument.

    Raises:
        RecipeError: the batch has too few parts, or none that `forward` takes.

    Example:
        >>> run_batch(nn.Identity(), (torch.ones(2), "a label"))
        tensor([1., 1.])
    """
    arguments, options = _arguments(module, batch)
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    placed, named = pytree.tree_map_only(
        (Tensor, PackedSequence), lambda value: value.to(device), (arguments, options)
    )
    return module(*placed, **named)


def check_batches(place: str, batches: object) -> None:
    """Refuse what yields no batches at all.

    Raises:
        RecipeError: it is not iterable.
    """
    if not hasattr(batches, "__iter__") and not hasattr(batches, "__getitem__"):
        raise RecipeError(
            f"{place}: expected batches, such as a DataLoader or a list, got "
            f"{type(batches).__name__}."
        )


def _arguments(module: nn.Module, batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    parameters = signature(module.forward).parameters.values()
    required = [p.name for p in parameters if p.kind in _PLACED and p.default is p.empty]
    if isinstance(batch, Mapping):
        takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
        known = {p.name for p in parameters}
        chosen = {k: v for k, v in batch.items() if k in known or takes_all}
        missing = [name for name in required if name not in chosen]
        if missing or not chosen:
            raise RecipeError(
                f"data: a batch has {', '.join(map(str, batch)) or 'no keys'}, but "
                f"{type(module).__name__}.forward needs {', '.join(missing or required)}. "
                "Rename the keys, or give `forward=` a function of the module and a batch."
            )
        return (), chosen
    if not isinstance(batch, tuple | list) or isinstance(batch, PackedSequence):
        return (batch,), {}
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return tuple(batch), {}
    if len(batch) < len(required):
        raise RecipeError(
            f"data: a batch has {len(batch)} parts, but {type(module).__name__}.forward needs "
            f"{len(required)}: {', '.join(required)}. Make the loader yield them in this order."
        )
    return tuple(batch[: max(len(required), 1)]), {}
