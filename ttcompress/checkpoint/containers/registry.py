"""A path enters, its tree leaves; what the file is, its content tells and never its name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ttcompress.checkpoint.containers.foreign import foreign_file
from ttcompress.checkpoint.containers.safetensors import LENGTH, read_safetensors
from ttcompress.checkpoint.containers.shards import read_shards
from ttcompress.checkpoint.containers.source import Source
from ttcompress.checkpoint.containers.torch_legacy import read_pickles
from ttcompress.checkpoint.containers.torch_zip import read_zip
from ttcompress.errors import CheckpointError
from ttcompress.system.stamps import Stamp

HEAD = 4096  # bytes that suffice to tell every kind


def read_container(path: Path) -> Source:
    """Take a model file, or the index of a sharded model, apart.

    Raises:
        CheckpointError: empty, damaged, hostile, or no container of PyTorch weights.
    """
    head = _head(path)
    if head[:1] == b"{" and not _is_safetensors(head):  # a header's length can begin so too
        stamp = Stamp.of(path)
        source = read_shards(path, read_file)
        return replace(source, stamps={path: stamp, **source.stamps})
    return read_file(path)


def read_file(path: Path) -> Source:
    """Take one model file apart; an index is refused here, so that none can point to another."""
    stamp = Stamp.of(path)
    return replace(_read_file(path), stamps={path: stamp})


def _read_file(path: Path) -> Source:
    head = _head(path)
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return read_zip(path)
    if head[:1] == b"\x80":
        return read_pickles(path)
    if _is_safetensors(head):
        return read_safetensors(path)
    raise foreign_file(head, _tail(path))


def _is_safetensors(head: bytes) -> bool:
    """A header length of a sensible size, then the opening brace of the header."""
    return head[LENGTH.size : LENGTH.size + 1] == b"{" and LENGTH.unpack(head[:8])[0] < 2**40


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        head = file.read(HEAD)
    if not head:
        raise CheckpointError("is empty (0 bytes). Copy or download the file again.")
    return head


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(-min(8, path.stat().st_size), 2)
        return file.read()
