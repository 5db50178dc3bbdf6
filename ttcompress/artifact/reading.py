"""Reads artifacts: `load` returns the compressed model in a file, if its parts agree."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from ttcompress.artifact.coherence import check_coherent
from ttcompress.artifact.model import FORMAT_VERSION, CompressedModel, keyed_parts
from ttcompress.checkpoint.names import names_inside
from ttcompress.checkpoint.recurrent import strange_tensors
from ttcompress.errors import ArtifactError, CheckpointError, unreadable
from ttcompress.hub import local_file
from ttcompress.model.report import Json, Report, judge_own_size, with_infinities
from ttcompress.model.weights import BYTES_PER_VALUE, RecurrentStack, Weight
from ttcompress.planning.formats import FORMATS, DenseLayout, Layout, decomposing
from ttcompress.stores import STORES, Encoded
from ttcompress.system.files import check_input
from ttcompress.system.json import check_integers, read_json
from ttcompress.system.memory import within_memory
from ttcompress.system.safetensors import ARTIFACT, MAX_DIMENSIONS, open_safetensors
from ttcompress.trains.stored import StoredWeight


@dataclass(frozen=True)
class _Modes:
    """A layout in the metadata."""

    format: str
    row_modes: tuple[int, ...]
    column_modes: tuple[int, ...]


@dataclass(frozen=True)
class _Entry:
    """One stored weight in the metadata; a dense one has no layout, ranks or zeros."""

    weight: Weight
    store: str
    layout: _Modes | None = None
    ranks: tuple[int, ...] = ()
    zero_rows: tuple[int, ...] = ()
    zero_columns: tuple[int, ...] = ()


@dataclass(frozen=True)
class _Document:
    """The metadata."""

    plan: tuple[_Entry, ...]
    stacks: tuple[RecurrentStack, ...]
    ties: dict[str, tuple[str, ...]]
    source_paths: dict[str, str]
    carried: Any
    report: Report


_DOCUMENT = TypeAdapter(_Document)


def load(path: str | Path) -> CompressedModel:
    """Read an artifact, from a file or from the hub (`hf://user/name`).

    Raises:
        InputError: the file does not exist.
        ArtifactError: the file is not an artifact, is damaged, or has another format version.
        TTCompressError: it cannot be read, or was changed meanwhile.
    """
    path = local_file(path)
    document, tensors = _read(path)
    version = document.get("format_version")
    if version not in range(1, FORMAT_VERSION + 1):
        raise ArtifactError(
            f"{path}: has format version {str(version)[:20]}, but this ttcompress reads versions "
            f"1 to {FORMAT_VERSION}. "
            "Install the version that wrote it, or compress the model again."
        )
    try:
        check_integers({key: part for key, part in document.items() if key != "carried"})
        report = with_infinities(document.get("report"))
        if isinstance(report, dict):
            report = judge_own_size(report, path.stat().st_size)
        read = document | {"report": report}
        model = _model(_DOCUMENT.validate_python(read), tensors)
        check_coherent(model)
    except (KeyError, ValueError) as error:
        raise ArtifactError(
            f"{path}: the metadata and the tensors do not match ({_fact(error)}). "
            "The file is damaged: compress the model again."
        ) from error
    return _without_foreign_layers(model)


def _without_foreign_layers(model: CompressedModel) -> CompressedModel:
    """The model without layers that version 0.1 took for torch's."""
    names = sorted(names_inside(model.source_paths))
    stacks = tuple(stack for stack in model.stacks if not strange_tensors(stack, names))
    return replace(model, stacks=stacks)


def _fact(error: KeyError | ValueError) -> str:
    """One line: the first of pydantic's findings, with its place."""
    if not isinstance(error, ValidationError):
        return repr(error)
    first = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def is_artifact(path: str | Path) -> bool:
    """Whether a file is an artifact of ttcompress; a missing or damaged file is not."""
    path = Path(path)
    try:
        return os.path.isfile(path) and ARTIFACT in open_safetensors(path).metadata
    except (CheckpointError, OSError):
        return False


def _read(path: Path) -> tuple[Json, dict[str, Tensor]]:
    check_input(path, "a compressed .safetensors file")
    try:
        found = open_safetensors(path)
        if ARTIFACT not in found.metadata:
            raise ArtifactError(
                f"{path}: is a safetensors file, but not an artifact of ttcompress. "
                "Compress it first: ttcompress decompose."
            )
        document = read_json(found.metadata[ARTIFACT].encode())
        with within_memory(str(path)):
            tensors = found.read()
    except (CheckpointError, ValueError) as error:
        raise ArtifactError(
            f"{path}: is not a readable safetensors file ({str(error).rstrip('.')}). "
            "Give the complete output of `ttcompress decompose`."
        ) from error
    except OSError as error:
        raise unreadable(path, error) from error
    if not isinstance(document, dict):
        raise ArtifactError(f"{path}: its metadata is not an object. Compress the model again.")
    return document, tensors


def _model(document: _Document, tensors: dict[str, Tensor]) -> CompressedModel:
    if missing := {"weights", "model"} - document.report.totals.keys():
        raise ValueError(f"report.totals: missing {', '.join(sorted(missing))}")
    effective = document.report.recipe["effective"]
    budget, key = effective.get("budget", {}), effective.get("key")
    if not isinstance(budget, dict) or not isinstance(key, str | None):
        raise ValueError("report.recipe: an invalid budget or key")
    if not all(isinstance(asked, int | float | str) for asked in budget.values()):
        raise ValueError("report.recipe: a budget must be of numbers or text")
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


def _stored_weight(entry: _Entry, tensors: Mapping[str, Tensor]) -> StoredWeight:
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


def _layout(entry: _Entry) -> Layout:
    found = entry.layout
    if found is None:
        return DenseLayout.candidates(entry.weight.shape)[0]
    if found.format not in decomposing():
        raise ValueError(f"{entry.weight.name}: a train cannot be of format {found.format[:20]!r}")
    return FORMATS[found.format](found.row_modes, found.column_modes)
