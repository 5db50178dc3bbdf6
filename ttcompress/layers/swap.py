"""A user's model and an artifact enter; the same model, its layers running trains, leaves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ttcompress.artifact import CompressedModel, load
from ttcompress.errors import ArtifactError
from ttcompress.layers.replacement import replacement
from ttcompress.trains.train import Train

Content = Mapping[str, Train | Tensor]


def load_into(model: nn.Module, source: str | Path | CompressedModel) -> nn.Module:
    """Put a compressed model into the module it was made from.

    Every layer that holds a decomposed weight is swapped for the one of its kind in
    `ttcompress.layers`, with the same configuration; all other tensors are copied into place;
    names that the artifact ties are one parameter again. Types and devices stay the model's own.

    Args:
        model: the module that the checkpoint's state dict fits; changed in place.
        source: an artifact's path, or a `CompressedModel`.

    Returns:
        `model`; or, where `model` itself is the layer to swap (a bare `nn.LSTM`), the layer that
        takes its place.

    Raises:
        ArtifactError: names or shapes do not match (all that do not are listed), or a weight
            belongs to a module that cannot run a train; the model is left as it was.
    """
    compressed = source if isinstance(source, CompressedModel) else load(source)
    content = compressed.content()
    _check(model, content)
    owners = dict.fromkeys(
        name.rpartition(".")[0] for name, value in content.items() if isinstance(value, Train)
    )
    layers = {path: _layer(model, path, content) for path in owners}
    _copy(model, {name: value for name, value in content.items() if _owner(name) not in layers})
    for path, layer in layers.items():
        if path == "":
            return layer
        parent, _, child = path.rpartition(".")
        setattr(model.get_submodule(parent), child, layer)
    for names in compressed.ties.values():
        _tie(model, tuple(name for name in names if name in content))
    return model


def _owner(name: str) -> str:
    return name.rpartition(".")[0]


def _check(model: nn.Module, content: Content) -> None:
    """Hold names and shapes against the model's, and list every mismatch."""
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in content.items()}
    problems = [f"{name} is not in the artifact" for name in wanted if name not in found]
    problems += [f"{name} is not in the model" for name in found if name not in wanted]
    problems += [
        f"{name} is {found[name]} in the artifact and {wanted[name]} in the model"
        for name in wanted
        if name in found and found[name] != wanted[name]
    ]
    if problems:
        raise ArtifactError(
            f"{type(model).__name__} is not the model that was compressed:\n    "
            + "\n    ".join(problems)
            + "\n    Build the module that the checkpoint was trained with."
        )


def _layer(model: nn.Module, path: str, content: Content) -> nn.Module:
    """What takes the place of the module at `path`, on its device and in its type."""
    module = model.get_submodule(path)
    like = next(module.parameters())
    inside = f"{path}." if path else ""
    tensors = {
        name.removeprefix(inside): value for name, value in content.items() if _owner(name) == path
    }
    try:
        layer = replacement(module, tensors)
    except ArtifactError as error:
        raise error.at(path or type(module).__name__) from error
    return layer.to(device=like.device, dtype=like.dtype)


def _copy(model: nn.Module, content: Content) -> None:
    """Copy tensors into the parameters and buffers of their names."""
    places: dict[str, Tensor] = {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }
    with torch.no_grad():
        for name, value in content.items():
            if name in places and isinstance(value, Tensor):
                places[name].copy_(value)


def _tie(model: nn.Module, names: tuple[str, ...]) -> None:
    """Make all names one parameter (or one train), the one of the first name."""
    for name in names[1:]:
        first_owner, _, first_leaf = names[0].rpartition(".")
        owner, _, leaf = name.rpartition(".")
        shared = getattr(model.get_submodule(first_owner), first_leaf)
        setattr(model.get_submodule(owner), leaf, shared)
