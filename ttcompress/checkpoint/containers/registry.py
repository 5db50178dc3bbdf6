"""The kinds of model files, told apart by their content and never by their names.

A new kind is a module beside this one with the two functions of `Container`, and its name in
`CONTAINERS`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ttcompress.checkpoint.containers import safetensors, torch_legacy, torch_zip
from ttcompress.checkpoint.containers.foreign import foreign_file
from ttcompress.checkpoint.containers.source import Container, Source
from ttcompress.errors import CheckpointError
from ttcompress.system.stamps import Stamp

CONTAINERS: tuple[Container, ...] = (safetensors, torch_zip, torch_legacy)
"""In the order they are asked: a safetensors file may begin with any byte, the length of its
header, and only the brace behind the length tells it from a pickle.
"""

HEAD, TAIL = 4096, 8  # bytes that suffice to tell every kind


def read_file(path: Path, *others: Container) -> Source:
    """Take one model file apart.

    Args:
        path: the file.
        others: kinds to ask after those of the registry.

    Raises:
        CheckpointError: empty, damaged, hostile, or of none of these kinds.
        OSError: the file cannot be read.
    """
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
    raise foreign_file(head, tail)
