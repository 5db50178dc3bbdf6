"""A trained model's file enters; its weights, layers and other content leave. Nothing in it is run.

one reader for each container    container -> torch_zip, torch_legacy, safetensors_file, shards
pickles as data                  pickles: the machine; inert, builders, arrays: what it builds
from a tree to a model           tree, choice, names, recurrent, roles, carried -> assembly
the door                         checkpoint
"""

from ttcompress.checkpoint.carried import rebuild
from ttcompress.checkpoint.checkpoint import Checkpoint, open_checkpoint

__all__ = ["Checkpoint", "open_checkpoint", "rebuild"]
