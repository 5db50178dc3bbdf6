"""Recognises the kind of a model file by its content, never by its name, and reads its structure.

To add a kind, write a module beside this one with the two functions of `Container`, and add it to
`CONTAINERS`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ttcompress.checkpoint.containers import safetensors, torch_legacy, torch_zip
from ttcompress.checkpoint.containers.archive import explain_archive
from ttcompress.checkpoint.containers.foreign import explain_foreign_file
from ttcompress.checkpoint.containers.source import Container, Source
from ttcompress.checkpoint.containers.torch_zip import ForeignZip
from ttcompress.errors import CheckpointError
from ttcompress.system.stamps import Stamp

CONTAINERS: tuple[Container, ...] = (safetensors, torch_zip, torch_legacy)
"""In the order they are tried: a safetensors file begins with the length of its header, which may
be any byte, and only the brace after the length distinguishes it from a pickle.
"""

HEAD, TAIL = 4096, 8  # bytes that suffice to recognise every kind


def read_file(path: Path, *others: Container) -> Source:
    """Read the structure of one model file.

    Args:
        path: the file.
        others: kinds to try after those of the registry.

    Raises:
        CheckpointError: empty, damaged, hostile, or of none of these kinds.
        OSError: the file cannot be read.
    """
    try:
        return _read(path, *others)
    except ForeignZip as found:
        raise explain_archive(path, found.entries, _read) from found


def _read(path: Path, *others: Container) -> Source:
    """As `read_file`, but an archive around other files is a ForeignZip: they may be archives."""
    stamp = Stamp.of(path)
    with path.open("rb") as file:
        head = file.read(HEAD)
        file.seek(max(file.seek(0, 2) - TAIL, 0))
        tail = file.read()
    if not head:
        raise CheckpointError("is empty (0 bytes). Copy or download the file again.")
    for container in (*CONTAINERS, *others):
        if container.owns(head):
            source = container.read(path)
            return replace(source, stamps={path: stamp, **source.stamps})
    raise explain_foreign_file(path, head, tail)
