"""Layers that run trains: each takes the place of the `torch.nn` layer of its name.

`replacement` builds the right one from a user's dense layer.
"""

from ttcompress.modules.cells import GRUCell, LSTMCell, RNNCell
from ttcompress.modules.linear import Embedding, Linear
from ttcompress.modules.recurrent import GRU, LSTM, RNN
from ttcompress.modules.replace import Replacement, replacement
from ttcompress.modules.running import Run, Way
from ttcompress.modules.weights import TrainWeight

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
    "replacement",
]
