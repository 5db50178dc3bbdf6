"""Writes an artifact as an ordinary dense checkpoint for the original code: `restore`."""

from __future__ import annotations

from pathlib import Path

import torch

from ttcompress.artifact import load
from ttcompress.errors import ArtifactError
from ttcompress.model.report import LeftOut
from ttcompress.system.files import check_output, written_whole


def restore(
    artifact: str | Path, output: str | Path, overwrite: bool = False
) -> tuple[LeftOut, ...]:
    """Write the source's nesting, keys, shapes and dtypes again, by `torch.save`.

    Returns:
        What the source's file held and this one does not, such as optimizer state.

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
    return compressed.report.left_out
