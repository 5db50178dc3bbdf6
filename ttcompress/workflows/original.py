"""Finds and opens the checkpoint that an artifact was made from, identified by its hash."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from ttcompress.artifact import CompressedModel, load
from ttcompress.checkpoint import Checkpoint, ModelSource, open_checkpoint
from ttcompress.errors import CheckpointError
from ttcompress.system.files import file_digest


def find_original(artifact: str | Path) -> Path | None:
    """Find the checkpoint of an artifact, by size and hash, beside it or in this folder."""
    wanted = load(artifact).report.source
    for folder in dict.fromkeys((Path(artifact).resolve().parent, Path.cwd())):
        for path in sorted(folder.glob("*")):
            with suppress(OSError):  # skip what cannot be read
                same_size = path.is_file() and path.stat().st_size == wanted["bytes"]
                if same_size and file_digest(path) == wanted["sha256"]:
                    return path
    return None


def open_original(
    source: ModelSource, compressed: CompressedModel, artifact: str | Path, key: str | None = None
) -> Checkpoint:
    """Open the checkpoint that a compressed model was made from.

    Args:
        source: the checkpoint's file, a module or a state dict.
        compressed: the model that was made from it.
        artifact: that model's file, for messages.
        key: which state dict of the checkpoint; by default the one in the recipe.

    Raises:
        InputError: there is no such file.
        CheckpointError: it cannot be read, or is not the one that was compressed.
    """
    found = open_checkpoint(source, key or compressed.report.recipe["effective"].get("key"))
    wanted = compressed.report.source["sha256"]
    if found.sha256 != wanted:
        raise CheckpointError(
            f"{found.label}: is not the model that {artifact} was made from: its SHA-256 is "
            f"{found.sha256[:12]}..., but the artifact's source had {wanted[:12]}.... "
            "Give the original file."
        )
    return found
