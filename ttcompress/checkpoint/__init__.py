"""Opens a trained model's file and reads its weights, layers and other content; runs no code in it.

`open_checkpoint` is the entry. The parts, from the bytes up:

containers/            one reader for each kind of file; `registry` lists them
pickle/                pickles read as data: the machine, and the allow-list of what it may build
tensors                describes tensors where they lie, and reads them one at a time
tree, choice           the walk over a file's values, and which state dict in them to take
reparametrised         weights that a module computes from other tensors
names, recurrent, roles   what the tensors are called, and what they are for
carried                what the file holds besides its tensors
assembly               puts all of that together for one file
"""

from ttcompress.checkpoint.carried import rebuild
from ttcompress.checkpoint.checkpoint import Checkpoint, ModelSource, open_checkpoint

__all__ = ["Checkpoint", "ModelSource", "open_checkpoint", "rebuild"]
