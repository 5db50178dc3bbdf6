"""Reads a safetensors file as a model: a flat state dict, in the order of the bytes."""

from __future__ import annotations

from pathlib import Path

from ttcompress.checkpoint.containers.source import Source
from ttcompress.checkpoint.tensors import StoredTensor, contiguous_stride
from ttcompress.errors import CheckpointError
from ttcompress.system.safetensors import ARTIFACT, LENGTH, open_safetensors
from ttcompress.system.text import clip


def owns(head: bytes) -> bool:
    """A header length of a sensible size, then the opening brace of the header."""
    return head[LENGTH.size : LENGTH.size + 1] == b"{" and LENGTH.unpack(head[:8])[0] < 2**40


def read(path: Path) -> Source:
    """Read the structure of a model's safetensors file, but no tensor.

    Raises:
        CheckpointError: damaged, truncated, or a ttcompress artifact.
    """
    found = open_safetensors(path)
    if ARTIFACT in found.metadata:
        raise CheckpointError(
            "is already compressed. Use `ttcompress restore` to get its dense weights back, "
            "`ttcompress evaluate` or `ttcompress report` to judge it."
        )
    unknown = sorted(set(found.metadata) - {"format"})
    return Source(
        "safetensors",
        {
            name: StoredTensor(name, entry.dtype, 0, entry.shape, contiguous_stride(entry.shape))
            for name, entry in found.tensors.items()
        },
        {name: entry.data for name, entry in found.tensors.items()},
        notes=(f"metadata not carried over: {', '.join(map(clip, unknown))[:200]}",)
        if unknown
        else (),
    )
