"""An artifact enters; the checkpoint it was made from, and no other, leaves."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from ttcompress.artifact import CompressedModel, load
from ttcompress.checkpoint import Checkpoint, open_checkpoint
from ttcompress.errors import CheckpointError
from ttcompress.system.files import file_digest


def find_original(artifact: str | Path) -> Path | None:
    """The checkpoint an artifact was made from, by size and hash: beside it or in this folder."""
    wanted = load(artifact).report.source
    for folder in dict.fromkeys((Path(artifact).resolve().parent, Path.cwd())):
        for path in sorted(folder.glob("*")):
            with suppress(OSError):  # what cannot be read is not found
                same_size = path.is_file() and path.stat().st_size == wanted["bytes"]
                if same_size and file_digest(path) == wanted["sha256"]:
                    return path
    return None


def open_original(
    path: str | Path, compressed: CompressedModel, artifact: str | Path, key: str | None = None
) -> Checkpoint:
    """Open the checkpoint that a compressed model was made from.

    Args:
        path: the checkpoint's file.
        compressed: what was made from it.
        artifact: the file of that, for messages.
        key: which state dict of the checkpoint; by default the one in the recipe.

    Raises:
        InputError: there is no such file.
        CheckpointError: it cannot be read, or is another one than the compressed model's.
    """
    found = open_checkpoint(path, key or compressed.report.recipe["effective"].get("key"))
    wanted = compressed.report.source["sha256"]
    if found.sha256 != wanted:
        raise CheckpointError(
            f"{found.path}: is not the model that {artifact} was made from: its SHA-256 is "
            f"{found.sha256[:12]}..., but the artifact's source had {wanted[:12]}.... "
            "Give the original file."
        )
    return found
