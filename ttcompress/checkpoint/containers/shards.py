"""The index of a sharded model (`*.index.json`) enters; one flat state dict leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ttcompress.checkpoint.containers.source import Source
from ttcompress.checkpoint.stored import Bytes, StoredTensor
from ttcompress.errors import CheckpointError
from ttcompress.system.json import read_json

MAX_INDEX = 100_000_000  # bytes; a million tensors

ReadSource = Callable[[Path], Source]


def read_shards(path: Path, read_source: ReadSource) -> Source:
    """Take every shard apart and join them in the index's order; no tensor is read.

    Raises:
        CheckpointError: no index, or a shard that is missing, outside the folder, or without a
            tensor that the index puts there.
    """
    places = _weight_map(path)
    names = tuple(dict.fromkeys(places.values()))
    shards = {name: _read_shard(path, name, read_source) for name in names}
    root: dict[str, StoredTensor] = {}
    for tensor, name in places.items():
        shard = shards[name]
        stored = shard.root.get(tensor) if isinstance(shard.root, dict) else None
        if not isinstance(stored, StoredTensor):
            raise CheckpointError(f"{tensor[:80]}: not in {name}, where the index puts it.")
        root[tensor] = replace(stored, storage=f"{name}:{stored.storage}")
    storages: dict[str, Bytes] = {
        f"{name}:{key}": source
        for name, shard in shards.items()
        for key, source in shard.storages.items()
    }
    kind = next(iter(shards.values())).container
    stamps = {file: stamp for shard in shards.values() for file, stamp in shard.stamps.items()}
    unloaded = tuple(dict.fromkeys(cls for shard in shards.values() for cls in shard.unloaded))
    return Source(f"{kind} sharded", root, storages, unloaded, stamps=stamps)


def _weight_map(path: Path) -> dict[str, str]:
    if path.stat().st_size > MAX_INDEX:
        raise CheckpointError("is a large text file, not a checkpoint. Give the checkpoint itself.")
    try:
        index: Any = read_json(path.read_bytes())
    except ValueError as error:
        raise CheckpointError(
            f"is a text file, and no JSON ({str(error)[:80]}). Give the checkpoint itself."
        ) from error
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict) or not places:
        raise CheckpointError(
            "is JSON without a `weight_map`, so no index of a sharded model. "
            "Give the checkpoint itself."
        )
    for name in places.values():
        if not isinstance(name, str) or Path(name).name != name:
            raise CheckpointError(
                f"its weight_map points to {str(name)[:80]!r}, outside its own folder. "
                "Put the shards beside the index, and write plain file names."
            )
    return places


def _read_shard(path: Path, name: str, read_source: ReadSource) -> Source:
    shard = path.parent / name
    if not shard.is_file():
        raise CheckpointError(f"its shard {name} is missing. Put it beside the index.")
    try:
        return read_source(shard)
    except CheckpointError as error:
        raise error.at(name) from error
