"""What a launcher of several processes (accelerate, torchrun) told this one in its environment."""

from __future__ import annotations

import os


def launched() -> int:
    """How many processes were launched together, this one counted."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this process is the one that measures, writes and speaks."""
    return int(os.environ.get("RANK", "0")) == 0
