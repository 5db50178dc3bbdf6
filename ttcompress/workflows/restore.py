"""Writes an artifact as an ordinary dense checkpoint for the original code: `restore`."""

from __future__ import annotations

from pathlib import Path

import torch

from ttcompress.artifact import load
from ttcompress.checkpoint.reparametrised import RESTORED_PLAIN
from ttcompress.errors import ArtifactError
from ttcompress.system.files import check_output, written_whole


def restore(artifact: str | Path, output: str | Path, overwrite: bool = False) -> tuple[str, ...]:
    """Write the source's nesting, keys, shapes and dtypes again, by `torch.save`.

    Optimizer state is absent; the artifact's notes say so if there was any. A weight that the
    source kept as parts, as under weight norm, is one plain tensor.

    Returns:
        A line for each way in which such weights were computed.

    Raises:
        InputError, ArtifactError: the artifact does not exist, or is damaged.
        OutputPathError: the output exists (without `overwrite`) or its folder is missing.
        OutputError: the disk is full or not writable.
    """
    check_output(Path(output), overwrite)  # before the work, which can be long
    compressed = load(artifact)
    try:
        content = compressed.restored()
    except ArtifactError as error:
        raise error.at(str(artifact)) from error
    with written_whole(Path(output), overwrite) as file:
        torch.save(content, file)
    return tuple(note for note in compressed.report.notes if RESTORED_PLAIN in note)
