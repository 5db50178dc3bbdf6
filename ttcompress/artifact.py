"""The compressed model and its file: one safetensors file that explains itself.

Cores are `<weight>.cores.<k>`, a dense weight in few bits `<weight>.dense`; integer stores split
each into `.planes`, `.scales` and `.factor`. Every other tensor keeps its own name. Metadata:
`format` is "pt", and one JSON string under `ttcompress` holds the rest.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from ttcompress.checkpoint import rebuild
from ttcompress.checkpoint.names import names_inside
from ttcompress.checkpoint.safetensors_file import ARTIFACT, read_contents
from ttcompress.checkpoint.stamps import Stamp, check_unchanged
from ttcompress.checkpoint.stored import read_tensor
from ttcompress.compress import StoredWeight
from ttcompress.errors import ArtifactError, CheckpointError, unreadable
from ttcompress.files import check_input, written_whole
from ttcompress.memory import within_memory
from ttcompress.plain_json import check_integers, read_json
from ttcompress.plan.layout import Layout
from ttcompress.report.model import Json, Report, with_infinities
from ttcompress.safetensors_writer import file_size, write_safetensors
from ttcompress.stores import STORES
from ttcompress.trains.rounding import Rounded
from ttcompress.trains.train import Train
from ttcompress.weights import BYTES_PER_VALUE, RecurrentStack, Weight

FORMAT_VERSION = 1

Held = TypeVar("Held")


@dataclass(frozen=True)
class _Entry:
    """What the metadata say about one stored weight; a dense one has no layout and no ranks."""

    weight: Weight
    store: str
    layout: Layout | None = None
    ranks: tuple[int, ...] = ()


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


@dataclass(frozen=True, eq=False)
class CompressedModel:
    """Stored weights, kept tensors, and all that is needed to use them without the source.

    `kept` holds every other tensor under the first of its names; `ties` lists all names of a tensor
    that has several. `carried` is the source's nesting with its non-tensor content, as typed JSON.
    """

    weights: tuple[StoredWeight, ...]
    kept: Mapping[str, Tensor]
    ties: Mapping[str, tuple[str, ...]]
    stacks: tuple[RecurrentStack, ...]
    source_paths: Mapping[str, str]
    carried: Any
    report: Report

    def state_dict(self) -> dict[str, Tensor]:
        """The model's state dict: dense, in the source's dtype, tied tensors under all names.

        Names are the model's own: wrapper keys and prefixes (`module.`) are gone; see `restored`
        for the source's own nesting.
        """
        dense = self._dense()
        return {name: dense[name] for name in names_inside(self.source_paths)}

    def restored(self) -> Any:
        """The source's content: plain nested dicts with its nesting, keys, shapes and dtypes."""
        return rebuild(self.carried, self._dense())

    def content(self) -> dict[str, Train | Tensor]:
        """The state dict with decomposed weights as trains, in float32."""
        first: dict[str, Train | Tensor] = dict(self.kept)
        for stored in self.weights:
            first[stored.weight.name] = stored.train() if stored.layout else stored.dense()
        everything = self._under_all_names(first)
        return {name: everything[name] for name in names_inside(self.source_paths)}

    def _dense(self) -> dict[str, Tensor]:
        dense = {stored.weight.name: stored.dense() for stored in self.weights}
        return self._under_all_names({**self.kept, **dense})

    def _under_all_names(self, first: Mapping[str, Held]) -> dict[str, Held]:
        """Tied names share one object."""
        return {tied: held for name, held in first.items() for tied in self.ties.get(name, (name,))}

    def save(self, path: str | Path, overwrite: bool = False) -> None:
        """Write the artifact, whole or not at all; the same model gives the same bytes.

        Raises:
            OutputPathError: the path exists (without `overwrite`) or its folder is missing.
            OutputError: the disk is full or not writable.
        """
        with written_whole(Path(path), overwrite) as file:
            write_safetensors(file, self.stored_tensors(), self._metadata())

    @property
    def file_bytes(self) -> int:
        """Bytes of the file that `save` writes."""
        return file_size(self.stored_tensors(), self._metadata())

    def stored_tensors(self) -> dict[str, Tensor]:
        """The tensors of the artifact by their keys."""
        return dict(self.kept) | {
            key + suffix: tensor
            for stored in self.weights
            for key, part in zip(
                _part_keys(stored.weight, stored.layout), stored.parts, strict=True
            )
            for suffix, tensor in part.tensors.items()
        }

    def with_tensors(self, tensors: Mapping[str, Tensor]) -> CompressedModel:
        """The same model with the values of `tensors`, keyed as by `stored_tensors`."""
        weights = tuple(
            replace(
                stored,
                parts=tuple(
                    Rounded.read(part.store, part.shape, key, tensors)
                    for key, part in _keyed_parts(stored)
                ),
            )
            for stored in self.weights
        )
        return replace(self, weights=weights, kept={name: tensors[name] for name in self.kept})

    def _metadata(self) -> dict[str, str]:
        document = {
            "format_version": FORMAT_VERSION,
            "plan": [_plan_entry(stored) for stored in self.weights],
            "stacks": [asdict(stack) for stack in self.stacks],
            "ties": {name: list(names) for name, names in self.ties.items()},
            "source_paths": dict(self.source_paths),
            "carried": self.carried,
            "report": self.report.as_json(),
        }
        text = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
        return {"format": "pt", ARTIFACT: text}


def load(path: str | Path) -> CompressedModel:
    """Read an artifact.

    Raises:
        InputError: there is no such file.
        ArtifactError: the file is no artifact, is damaged, or has another format version.
        TTCompressError: it cannot be read, or was changed meanwhile.
    """
    path = Path(path)
    document, tensors = _read(path)
    version = document.get("format_version")
    if version != FORMAT_VERSION:
        raise ArtifactError(
            f"{path}: format version {str(version)[:20]}, this ttcompress reads {FORMAT_VERSION}. "
            "Install the version that wrote it, or compress the model again."
        )
    try:
        check_integers({key: part for key, part in document.items() if key != "carried"})
        read = document | {"report": with_infinities(document.get("report"))}
        return _model(_DOCUMENT.validate_python(read), tensors)
    except (KeyError, ValueError) as error:
        raise ArtifactError(
            f"{path}: the metadata and the tensors do not fit each other ({_fact(error)}). "
            "The file is damaged: compress the model again."
        ) from error


def _fact(error: KeyError | ValueError) -> str:
    """One line: of pydantic's findings the first, with its place."""
    if not isinstance(error, ValidationError):
        return repr(error)
    first = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def is_artifact(path: str | Path) -> bool:
    """Whether a file is an artifact of ttcompress; a missing or damaged file is none."""
    path = Path(path)
    try:
        return os.path.isfile(path) and ARTIFACT in read_contents(path).metadata
    except (CheckpointError, OSError):
        return False


def _read(path: Path) -> tuple[Json, dict[str, Tensor]]:
    check_input(path, "a compressed .safetensors file")
    try:
        stamps = {path: Stamp.of(path)}
        document, tensors = _document_and_tensors(path)
        check_unchanged(stamps)
    except (CheckpointError, ValueError) as error:
        raise ArtifactError(
            f"{path}: is not a readable safetensors file ({str(error).rstrip('.')}). "
            "Give the output of `ttcompress decompose`, whole."
        ) from error
    except OSError as error:
        raise unreadable(path, error) from error
    if not isinstance(document, dict):
        raise ArtifactError(f"{path}: its metadata is not an object. Compress the model again.")
    return document, tensors


def _document_and_tensors(path: Path) -> tuple[Any, dict[str, Tensor]]:
    found = read_contents(path)
    if ARTIFACT not in found.metadata:
        raise ArtifactError(
            f"{path}: is a safetensors file, but not an artifact of ttcompress. "
            "Compress it first: ttcompress decompose."
        )
    document = read_json(found.metadata[ARTIFACT].encode())
    with within_memory(str(path)):
        tensors = {name: read_tensor(t, found.storages) for name, t in found.tensors.items()}
    return document, tensors


def _model(document: _Document, tensors: dict[str, Tensor]) -> CompressedModel:
    if missing := {"weights", "model"} - document.report.totals.keys():
        raise ValueError(f"report.totals: no {', '.join(sorted(missing))}")
    effective = document.report.recipe["effective"]
    budget, key = effective.get("budget", {}), effective.get("key")
    if not isinstance(budget, dict) or not isinstance(key, str | None):
        raise ValueError("report.recipe: a budget or a key that no recipe has")
    if not all(isinstance(asked, int | float | str) for asked in budget.values()):
        raise ValueError("report.recipe: a budget of neither numbers nor text")
    weights = tuple(_stored_weight(entry, tensors) for entry in document.plan)
    used = {
        key + suffix
        for stored in weights
        for key, part in _keyed_parts(stored)
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


def _plan_entry(stored: StoredWeight) -> Json:
    layout = stored.layout
    entry: Json = {"weight": asdict(stored.weight), "store": stored.parts[0].store.name}
    if layout is not None:
        ranks = [part.shape[-1] for part in stored.parts[:-1]]
        entry |= {"layout": asdict(layout), "ranks": ranks}
    return entry


def _stored_weight(entry: _Entry, tensors: Mapping[str, Tensor]) -> StoredWeight:
    weight, layout = entry.weight, entry.layout
    if weight.dtype not in BYTES_PER_VALUE:
        raise ValueError(f"{weight.name}: no weight is of type {weight.dtype}")
    if layout is not None and layout.shape != weight.shape:
        raise ValueError(f"{weight.name}: modes make {layout.shape}, the weight is {weight.shape}")
    shapes = layout.core_shapes(entry.ranks) if layout else (weight.shape,)
    store = STORES[entry.store]
    parts = tuple(
        Rounded.read(store, shape, key, tensors)
        for key, shape in zip(_part_keys(weight, layout), shapes, strict=True)
    )
    return StoredWeight(weight, layout, parts)


def _keyed_parts(stored: StoredWeight) -> Iterator[tuple[str, Rounded]]:
    return zip(_part_keys(stored.weight, stored.layout), stored.parts, strict=True)


def _part_keys(weight: Weight, layout: Layout | None) -> list[str]:
    if layout is None:
        return [f"{weight.name}.dense"]
    return [f"{weight.name}.cores.{k}" for k in range(layout.cores)]
