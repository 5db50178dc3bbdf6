"""Puts trains into a user's modules: `replace_layer` into one layer, `load_into` a whole model,
`compressed_copy` into a copy of it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ttcompress.artifact import CompressedModel, load
from ttcompress.errors import ArtifactError
from ttcompress.layers.embedding import Embedding
from ttcompress.layers.linear import Linear
from ttcompress.layers.recurrent import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell
from ttcompress.layers.reparametrised import make_plain, plain_shapes
from ttcompress.layers.stacks import Nonlinearity, dense_layer
from ttcompress.model.geometry import stored_names
from ttcompress.model.weights import RecurrentStack
from ttcompress.trains.train import Train

Content = Mapping[str, Train | Tensor]
"""Tensors and trains by name: see `CompressedModel.content`."""

Replacement = LSTM | GRU | RNN | LSTMCell | GRUCell | RNNCell | Linear | Embedding

REPLACEMENTS: dict[type[nn.Module], Any] = {
    nn.LSTM: LSTM,
    nn.GRU: GRU,
    nn.RNN: RNN,
    nn.LSTMCell: LSTMCell,
    nn.GRUCell: GRUCell,
    nn.RNNCell: RNNCell,
    nn.Linear: Linear,
    nn.Embedding: Embedding,
}


def replace_layer(module: nn.Module, tensors: Content) -> Replacement:
    """Make a layer of the same configuration that holds `tensors`, the rest copied from `module`.

    Args:
        module: a recurrent layer or cell, Linear or Embedding of `torch.nn`; left as it is. One
            that was made here is returned if there is nothing to replace.
        tensors: by the layer's own names: "weight_hh_l0", "weight", "bias".

    Raises:
        ArtifactError: the layer is of another kind or overrides torch's `forward`, or a tensor
            does not fit it.
    """
    cure = (
        "Compress these weights with format dense or keep, or run the model with the plain "
        "weights that `ttcompress restore` writes."
    )
    name, held = type(module).__name__, ", ".join(tensors)
    for dense, layer in REPLACEMENTS.items():
        made: Replacement
        if isinstance(module, layer) and not tensors:
            made = module
            return made
        if isinstance(module, dense) and not isinstance(module, layer):
            if type(module).forward is not dense.forward:
                raise ArtifactError(
                    f"a {name} has its own forward, which would be lost with trains for {held} in "
                    f"place of a torch.nn.{dense.__name__}. {cure}"
                )
            made = layer.from_dense(module, tensors)
            return made
    raise ArtifactError(f"a {name} cannot hold trains: {held}. {cure}")


def recurrent_layer(
    stack: RecurrentStack,
    content: Content,
    nonlinearity: Nonlinearity = "tanh",
    *,
    batch_first: bool = True,
) -> nn.RNNBase | Replacement:
    """Make a layer of this geometry that holds a model's tensors, in float32 and for evaluation.

    It is torch's own if all of them are dense; a cell becomes a layer that steps through time.

    Args:
        stack: the geometry.
        content: the tensors and trains by their names in the model; it may hold others.
        nonlinearity: for an RNN; a checkpoint does not say.
        batch_first: the input is (batch, time, input) instead of (time, batch, input).
    """
    values = {own: content[name] for own, name in stored_names(stack).items()}
    trains = {own: value for own, value in values.items() if isinstance(value, Train)}

    def dense(name: str) -> Tensor | None:
        value = content[name]
        return value if isinstance(value, Tensor) else None

    layer = dense_layer(stack, dense, nonlinearity, batch_first=batch_first)
    return replace_layer(layer, trains).eval() if trains else layer


def set_module(root: nn.Module, path: str, module: nn.Module) -> nn.Module:
    """Put a module at a dotted path; return the root, or the module itself if the path is empty."""
    if not path:
        return module
    parent, _, child = path.rpartition(".")
    setattr(root.get_submodule(parent), child, module)
    return root


def load_into(model: nn.Module, source: str | Path | CompressedModel) -> nn.Module:
    """Put a compressed model into the module it was made from.

    Every layer that holds a decomposed weight is swapped for the one of its kind in
    `ttcompress.layers`, with the same configuration; all other tensors are copied into place;
    names that the artifact ties are one parameter again. Types and devices stay the model's. A
    weight under weight norm, spectral norm, pruning or a parametrization becomes a plain one.

    Args:
        model: the module that the checkpoint's state dict fits; changed in place.
        source: an artifact's path, or a `CompressedModel`.

    Returns:
        `model`; or, where `model` itself is the layer to swap (a bare `nn.LSTM`), the layer that
        takes its place.

    Raises:
        ArtifactError: names or shapes do not match (all mismatches are listed), or a weight
            belongs to a module that cannot run a train. The model is left as it was.
    """
    compressed = source if isinstance(source, CompressedModel) else load(source)
    content = compressed.content()
    _check_names(model, content)
    make_plain(model, content)
    owners = {name: name.rpartition(".")[0] for name in content}
    paths = dict.fromkeys(owners[n] for n, value in content.items() if isinstance(value, Train))
    layers = {
        path: _compressed_layer(
            model, path, {name: v for name, v in content.items() if owners[name] == path}
        )
        for path in paths
    }
    places: dict[str, Tensor] = {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }
    with torch.no_grad():
        for name, value in content.items():
            if owners[name] not in layers and name in places and isinstance(value, Tensor):
                places[name].copy_(value)
    for path, layer in layers.items():
        if path == "":
            return layer
        set_module(model, path, layer)
    for names in compressed.ties.values():
        present = [name.rpartition(".") for name in names if name in content]
        for owner, _, leaf in present[1:]:  # all names share the first one's parameter (or train)
            shared = getattr(model.get_submodule(present[0][0]), present[0][2])
            setattr(model.get_submodule(owner), leaf, shared)
    return model


def compressed_copy(module: nn.Module, compressed: CompressedModel) -> nn.Module:
    """Make a copy of the module that was compressed, with compressed layers, on the same device.

    Raises:
        ArtifactError: see `load_into`.
    """
    copy = deepcopy(module)
    return load_into(copy, compressed).train(module.training)


def _check_names(model: nn.Module, content: Content) -> None:
    """Compare names and shapes with the model's, and list every mismatch."""
    wanted = plain_shapes(model, content)
    found = {name: tuple(value.shape) for name, value in content.items()}
    problems = [f"{name} is not in the artifact" for name in wanted if name not in found]
    problems += [f"{name} is not in the model" for name in found if name not in wanted]
    problems += [
        f"{name} is {found[name]} in the artifact but {wanted[name]} in the model"
        for name in wanted
        if name in found and found[name] != wanted[name]
    ]
    if problems:
        cure = prefix_cure(wanted, found)
        if any(isinstance(module, Replacement) for module in model.modules()):
            cure = "It has compressed layers already. Give the module as it was before."
        build = "Build the module that the checkpoint was trained with."
        raise ArtifactError(
            f"{type(model).__name__} is not the model that was compressed:\n    "
            + "\n    ".join([*problems, cure or build])
        )


def prefix_cure(module: Collection[str], file: Collection[str]) -> str | None:
    """What to do where a module's names and a file's only differ by a prefix; None if by more.

    >>> prefix_cure({"cell.bias"}, {"model.cell.bias"})
    'In the file all names begin with `model.`: give a module that holds this one as `model`.'
    """
    for longer, shorter in ((file, module), (module, file)):
        first = min(shorter, default="")
        prefixes = {name.removesuffix(first) for name in longer if name.endswith(f".{first}")}
        for prefix in prefixes:
            if {prefix + name for name in shorter} == set(longer):
                path = prefix.removesuffix(".")
                if longer is file:
                    return (
                        f"In the file all names begin with `{prefix}`: give a module that holds "
                        f"this one as `{path}`."
                    )
                return f"In the file no name begins with `{prefix}`: give the module's `{path}`."
    return None


def _compressed_layer(model: nn.Module, path: str, content: Content) -> nn.Module:
    """Make the replacement for the module at `path`, on its device and in its type."""
    module = model.get_submodule(path)
    like = next(module.parameters())
    tensors = {name.rpartition(".")[2]: value for name, value in content.items()}
    try:
        layer = replace_layer(module, tensors)
    except ArtifactError as error:
        raise error.at(path or type(module).__name__) from error
    return layer.to(device=like.device, dtype=like.dtype)
