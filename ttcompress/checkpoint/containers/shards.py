"""Reads a sharded model, whose index (`*.index.json`) says which file holds each tensor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ttcompress.checkpoint.containers.registry import read_file
from ttcompress.checkpoint.containers.source import Source
from ttcompress.checkpoint.tensors import Bytes, StoredTensor
from ttcompress.errors import CheckpointError
from ttcompress.system.json import read_json
from ttcompress.system.shards import MAX_INDEX
from ttcompress.system.stamps import Stamp
from ttcompress.system.text import clip


def owns(head: bytes) -> bool:
    """Whether it may be JSON."""
    return head[:1] == b"{"


def read(path: Path) -> Source:
    """Read the structure of every shard and join them in the index's order, but read no tensor.

    Raises:
        CheckpointError: it is not an index, or a shard is missing, outside the folder, or without
            a tensor that the index puts there.
    """
    places = _read_weight_map(path)
    shards = {name: _read_shard(path.parent, name) for name in dict.fromkeys(places.values())}
    root: dict[str, StoredTensor] = {}
    for tensor, name in places.items():
        shard = shards[name]
        stored = shard.root.get(tensor) if isinstance(shard.root, dict) else None
        if not isinstance(stored, StoredTensor):
            raise CheckpointError(
                f"{clip(tensor)}: is not in {name}, where the index puts it. "
                "Copy or download the shards again."
            )
        root[tensor] = replace(stored, storage=f"{name}:{stored.storage}")
    storages: dict[str, Bytes] = {}
    stamps: dict[Path, Stamp] = {}
    unloaded: dict[str, None] = {}
    for name, shard in shards.items():
        storages |= {f"{name}:{key}": held for key, held in shard.storages.items()}
        stamps |= shard.stamps
        unloaded |= dict.fromkeys(shard.unloaded)
    kind = next(iter(shards.values())).container
    return Source(f"{kind} sharded", root, storages, tuple(unloaded), stamps=stamps)


def _read_weight_map(path: Path) -> dict[str, str]:
    if path.stat().st_size > MAX_INDEX:
        raise CheckpointError("is a large text file, not a checkpoint. Give the checkpoint itself.")
    try:
        index: Any = read_json(path.read_bytes())
    except ValueError as error:
        raise CheckpointError(
            f"is a text file, but not JSON ({clip(str(error))}). Give the checkpoint itself."
        ) from error
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict) or not places:
        raise CheckpointError(
            "is JSON without a `weight_map`, so not the index of a sharded model. "
            "Give the checkpoint itself."
        )
    for name in places.values():
        if not isinstance(name, str) or Path(name).name != name:
            raise CheckpointError(
                f"its weight_map points to {str(name)[:80]!r}, outside its own folder. "
                "Put the shards next to the index and use plain file names."
            )
    return places


def _read_shard(folder: Path, name: str) -> Source:
    if not (folder / name).is_file():
        raise CheckpointError(f"its shard {name} is missing. Put it next to the index.")
    try:
        return read_file(folder / name)
    except CheckpointError as error:
        raise error.at(name) from error
