"""From trains and a dense `torch.nn` layer, or its geometry, to the layer that runs the trains."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from ttcompress.errors import ArtifactError
from ttcompress.layers.cells import GRUCell, LSTMCell, RNNCell
from ttcompress.layers.embedding import Embedding
from ttcompress.layers.linear import Linear
from ttcompress.layers.recurrent import GRU, LSTM, RNN
from ttcompress.layers.stacks import Nonlinearity, dense_layer
from ttcompress.model.geometry import stored_names
from ttcompress.model.weights import RecurrentStack
from ttcompress.trains.train import Train

Content = Mapping[str, Train | Tensor]
"""A model's state dict with trains in it: see `CompressedModel.content`."""

Replacement = LSTM | GRU | RNN | LSTMCell | GRUCell | RNNCell | Linear | Embedding


def replacement(module: nn.Module, tensors: Mapping[str, Train | Tensor]) -> Replacement:
    """A layer of the same configuration that holds `tensors`, the rest copied from `module`.

    Args:
        module: a recurrent layer or cell, Linear or Embedding of `torch.nn`; left as it is.
        tensors: by the layer's own names: "weight_hh_l0", "weight", "bias".

    Raises:
        ArtifactError: another kind of layer, or a tensor that does not fit it.
    """
    match module:
        case nn.LSTM():
            return LSTM.from_dense(module, tensors)
        case nn.GRU():
            return GRU.from_dense(module, tensors)
        case nn.RNN():
            return RNN.from_dense(module, tensors)
        case nn.LSTMCell():
            return LSTMCell.from_dense(module, tensors)
        case nn.GRUCell():
            return GRUCell.from_dense(module, tensors)
        case nn.RNNCell():
            return RNNCell.from_dense(module, tensors)
        case nn.Linear():
            return Linear.from_dense(module, tensors)
        case nn.Embedding():
            return Embedding.from_dense(module, tensors)
    raise ArtifactError(f"a {type(module).__name__} cannot hold trains: {', '.join(tensors)}")


def recurrent_layer(
    stack: RecurrentStack,
    content: Content,
    nonlinearity: Nonlinearity = "tanh",
    *,
    batch_first: bool = True,
) -> nn.RNNBase | Replacement:
    """A layer of this geometry that holds a model's tensors, in float32 and for evaluation.

    It is torch's own where all of them are dense; a cell becomes a layer that steps through time.

    Args:
        stack: the geometry.
        content: the tensors and trains by their names in the model, others among them.
        nonlinearity: of an RNN, which a checkpoint does not tell.
        batch_first: the input is (batch, time, input) and not (time, batch, input).
    """
    values = {own: content[name] for own, name in stored_names(stack).items()}
    trains = {own: value for own, value in values.items() if isinstance(value, Train)}

    def dense(name: str) -> Tensor | None:
        value = content[name]
        return value if isinstance(value, Tensor) else None

    layer = dense_layer(stack, dense, nonlinearity, batch_first=batch_first)
    return replacement(layer, trains).eval() if trains else layer
