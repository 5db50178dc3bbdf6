"""Reads what an artifact says of itself, without its tensors and without torch.

`read_report` is all that showing a report takes. Whether the tensors are what the document says is
checked where they are read: `ttcompress.artifact.load`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ttcompress.errors import ArtifactError, CheckpointError, unreadable
from ttcompress.model.report import Report, judge_own_size, with_infinities
from ttcompress.model.weights import RecurrentStack, Weight
from ttcompress.results.objects import check_objects
from ttcompress.system.files import check_input
from ttcompress.system.json import check_integers, read_json
from ttcompress.system.safetensors import ARTIFACT, Contents, open_safetensors

if TYPE_CHECKING:
    from pydantic import TypeAdapter

FORMAT_VERSION = 3
"""Version 2 has no store `coded`; version 1 no scales below zero and no `zero_rows` or
`zero_columns` either. Readers take all.
"""


@dataclass(frozen=True)
class Modes:
    """A layout in the metadata."""

    format: str
    row_modes: tuple[int, ...]
    column_modes: tuple[int, ...]


@dataclass(frozen=True)
class Entry:
    """One stored weight in the metadata; a dense one has no layout, ranks or zeros."""

    weight: Weight
    store: str
    layout: Modes | None = None
    ranks: tuple[int, ...] = ()
    zero_rows: tuple[int, ...] = ()
    zero_columns: tuple[int, ...] = ()


@dataclass(frozen=True)
class Document:
    """The metadata."""

    plan: tuple[Entry, ...]
    stacks: tuple[RecurrentStack, ...]
    ties: dict[str, tuple[str, ...]]
    source_paths: dict[str, str]
    carried: Any
    report: Report


def read_report(path: str | Path) -> Report:
    """The report of an artifact.

    Raises:
        InputError: the file does not exist.
        ArtifactError: the file is not an artifact, is damaged, or has another format version.
        TTCompressError: it cannot be read.
    """
    return open_artifact(Path(path))[0].report


def open_artifact(path: Path) -> tuple[Document, Contents]:
    """What an artifact says of itself, and its tensors, still in the file.

    Raises:
        InputError, ArtifactError, TTCompressError: as in `read_report`.
    """
    check_input(path, "a compressed .safetensors file")
    with reading(path):
        found = open_safetensors(path)
        if ARTIFACT not in found.metadata:
            raise ArtifactError(
                f"{path}: is a safetensors file, but not an artifact of ttcompress. "
                "Compress it first: ttcompress decompose."
            )
        metadata = read_json(found.metadata[ARTIFACT].encode())
    if not isinstance(metadata, dict):
        raise ArtifactError(f"{path}: its metadata is not an object. Compress the model again.")
    version = metadata.get("format_version")
    if version not in range(1, FORMAT_VERSION + 1):
        raise ArtifactError(
            f"{path}: has format version {str(version)[:20]}, but this ttcompress reads versions "
            f"1 to {FORMAT_VERSION}. "
            "Install the version that wrote it, or compress the model again."
        )
    with matching(path):
        check_integers({key: part for key, part in metadata.items() if key != "carried"})
        report = with_infinities(metadata.get("report"))
        if isinstance(report, dict):
            report = judge_own_size(report, path.stat().st_size)
        document = _documents().validate_python(metadata | {"report": report})
        _check_report(document.report)
    return document, found


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Say of what goes wrong while the file is read which file it is."""
    try:
        yield
    except (CheckpointError, ValueError) as error:
        raise ArtifactError(
            f"{path}: is not a readable safetensors file ({str(error).rstrip('.')}). "
            "Give the complete output of `ttcompress decompose`."
        ) from error
    except OSError as error:
        raise unreadable(path, error) from error


@contextmanager
def matching(path: Path) -> Iterator[None]:
    """Say of parts that do not fit each other which file they are in."""
    try:
        yield
    except (KeyError, ValueError) as error:
        raise ArtifactError(
            f"{path}: the metadata and the tensors do not match ({_fact(error)}). "
            "The file is damaged: compress the model again."
        ) from error


def _fact(error: KeyError | ValueError) -> str:
    """One line: the first of pydantic's findings, with its place."""
    from pydantic import ValidationError  # heavy, and needed only where a file is read

    if not isinstance(error, ValidationError):
        return repr(error)
    first = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


@cache
def _documents() -> TypeAdapter[Document]:
    from pydantic import TypeAdapter  # heavy, and needed only where a file is read

    return TypeAdapter(Document)


def _check_report(report: Report) -> None:
    if missing := {"weights", "model"} - report.totals.keys():
        raise ValueError(f"report.totals: missing {', '.join(sorted(missing))}")
    check_objects(report)
    for weight in report.weights:
        for cut in weight.spectrum:
            places, increasing = cut.indices, sorted(set(cut.indices))
            if not places or list(places) != increasing or places[0] < 0 or cut.rank < 0:
                raise ValueError(f"{weight.name}: the indices of a spectrum do not increase from 0")
            if len(places) != len(cut.values):
                raise ValueError(
                    f"{weight.name}: a spectrum has {len(places)} indices, {len(cut.values)} values"
                )
