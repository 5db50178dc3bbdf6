"""Lists the shards of a sharded model without judging its index: a reader of checkpoints does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ttcompress.system.json import read_json

MAX_INDEX = 100_000_000  # bytes; a million tensors


def shard_names(index: Path) -> tuple[str, ...]:
    """The files that a model's index names; none if it is not an index, or cannot be read."""
    try:
        if index.suffix != ".json" or index.stat().st_size > MAX_INDEX:
            return ()
        document: Any = read_json(index.read_bytes())
        return tuple(sorted({str(name) for name in document["weight_map"].values()}))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return ()
