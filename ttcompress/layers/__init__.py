"""Layers that run trains: each replaces the `torch.nn` layer of the same name.

`replace_layer` builds the right one from a user's dense layer.
"""

from ttcompress.layers.embedding import Embedding
from ttcompress.layers.linear import Linear
from ttcompress.layers.matrices import TrainWeight
from ttcompress.layers.recurrent import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell
from ttcompress.layers.speed import Run, Way
from ttcompress.layers.swap import Replacement, replace_layer

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Embedding",
    "GRUCell",
    "LSTMCell",
    "Linear",
    "RNNCell",
    "Replacement",
    "Run",
    "TrainWeight",
    "Way",
    "replace_layer",
]
