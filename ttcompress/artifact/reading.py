"""Reads artifacts: `load` returns the compressed model in a file, if its parts agree."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from ttcompress.artifact.coherence import check_coherent
from ttcompress.artifact.model import CompressedModel, keyed_parts
from ttcompress.checkpoint.names import names_inside
from ttcompress.checkpoint.recurrent import strange_tensors
from ttcompress.errors import CheckpointError
from ttcompress.hub import local_file
from ttcompress.model.weights import BYTES_PER_VALUE
from ttcompress.planning.formats import FORMATS, DenseLayout, Layout, decomposing
from ttcompress.results.document import Document, Entry, matching, open_artifact, reading
from ttcompress.stores import STORES, Encoded
from ttcompress.system.memory import within_memory
from ttcompress.system.safetensors import ARTIFACT, MAX_DIMENSIONS, open_safetensors
from ttcompress.trains.stored import StoredWeight


def load(path: str | Path) -> CompressedModel:
    """Read an artifact, from a file or from the hub (`hf://user/name`).

    Raises:
        InputError: the file does not exist.
        ArtifactError: the file is not an artifact, is damaged, or has another format version.
        TTCompressError: it cannot be read, or was changed meanwhile.
    """
    path = local_file(path)
    document, contents = open_artifact(path)
    with reading(path), within_memory(str(path)):
        tensors = contents.read()
    with matching(path):
        model = _model(document, tensors)
        check_coherent(model)
    return _without_foreign_layers(model)


def _without_foreign_layers(model: CompressedModel) -> CompressedModel:
    """The model without layers that version 0.1 took for torch's."""
    names = sorted(names_inside(model.source_paths))
    stacks = tuple(stack for stack in model.stacks if not strange_tensors(stack, names))
    return replace(model, stacks=stacks)


def is_artifact(path: str | Path) -> bool:
    """Whether a file is an artifact of ttcompress; a missing or damaged file is not."""
    path = Path(path)
    try:
        return os.path.isfile(path) and ARTIFACT in open_safetensors(path).metadata
    except (CheckpointError, OSError):
        return False


def _model(document: Document, tensors: dict[str, Tensor]) -> CompressedModel:
    weights = tuple(_stored_weight(entry, tensors) for entry in document.plan)
    used = {
        key + suffix
        for stored in weights
        for key, part in keyed_parts(stored)
        for suffix in part.tensors
    }
    return CompressedModel(
        weights=weights,
        kept={name: tensor for name, tensor in tensors.items() if name not in used},
        ties=document.ties,
        stacks=document.stacks,
        source_paths=document.source_paths,
        carried=document.carried,
        report=document.report,
    )


def _stored_weight(entry: Entry, tensors: Mapping[str, Tensor]) -> StoredWeight:
    weight, layout = entry.weight, _layout(entry)
    if weight.dtype not in BYTES_PER_VALUE:
        raise ValueError(f"{weight.name}: a weight cannot be of type {weight.dtype}")
    if layout.cores > MAX_DIMENSIONS:
        raise ValueError(f"{weight.name}: a train cannot have {layout.cores} cores")
    if layout.shape != weight.shape:
        raise ValueError(
            f"{weight.name}: modes make {layout.shape}, but the weight is {weight.shape}"
        )
    store, shapes = STORES[entry.store], layout.core_shapes(entry.ranks)
    parts = tuple(
        Encoded.read(store, shape, f"{weight.name}.{name}", tensors)
        for name, shape in zip(layout.core_names, shapes, strict=True)
    )
    sides = weight.shape if layout.decomposes else (0, 0)  # a dense weight needs no list of zeros
    for places, side in zip((entry.zero_rows, entry.zero_columns), sides, strict=True):
        increasing = list(places) == sorted({*places})
        if places and not (increasing and places[0] >= 0 and places[-1] < side):
            raise ValueError(f"{weight.name}: its zeros are not increasing numbers below {side}")
    return StoredWeight(weight, layout, parts, entry.zero_rows, entry.zero_columns)


def _layout(entry: Entry) -> Layout:
    found = entry.layout
    if found is None:
        return DenseLayout.candidates(entry.weight.shape)[0]
    if found.format not in decomposing():
        raise ValueError(f"{entry.weight.name}: a train cannot be of format {found.format[:20]!r}")
    return FORMATS[found.format](found.row_modes, found.column_modes)
