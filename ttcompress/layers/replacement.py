"""From a dense `torch.nn` layer and trains for its weights to the layer that takes its place."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from ttcompress.errors import ArtifactError
from ttcompress.layers.cells import GRUCell, LSTMCell, RNNCell
from ttcompress.layers.embedding import Embedding
from ttcompress.layers.linear import Linear
from ttcompress.layers.recurrent import GRU, LSTM, RNN
from ttcompress.trains.train import Train

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
