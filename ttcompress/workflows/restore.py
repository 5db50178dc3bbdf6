"""Writes an artifact as an ordinary dense checkpoint for the original code: `restore`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from ttcompress.artifact import load
from ttcompress.checkpoint.reparametrised import RESTORED_PLAIN
from ttcompress.errors import ArtifactError
from ttcompress.model.report import LeftOut
from ttcompress.system.files import check_output, written_whole


@dataclass(frozen=True)
class Restored:
    """How the dense file differs from the source.

    Attributes:
        left_out: what the source's file held and this one does not, such as optimizer state.
        notes: a line for each way in which weights were computed from parts, as under weight norm:
            each of those is one plain tensor now.
    """

    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]


def restore(artifact: str | Path, output: str | Path, overwrite: bool = False) -> Restored:
    """Write the source's nesting, keys, shapes and dtypes again, by `torch.save`.

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
    report = compressed.report
    return Restored(report.left_out, tuple(note for note in report.notes if RESTORED_PLAIN in note))
