"""Reads from the environment how a launcher (accelerate, torchrun) started this process."""

from __future__ import annotations

import os


def count_processes() -> int:
    """How many processes were launched together, including this one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this process is the one that measures, writes files and prints."""
    return int(os.environ.get("RANK", "0")) == 0
