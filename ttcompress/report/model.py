"""The report as a value: what was done to a model and what it cost. No torch, no Rich.

`Report.as_json()` is the document that `ttcompress report --json` prints and others rely on; it is
stored in the artifact as it is, and `from_json` reads it back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

Json = dict[str, Any]
SPECTRUM_POINTS = 64
"""Enough for a picture, and few enough to be a small part of a small file."""


@dataclass(frozen=True)
class Scope:
    """Before and after over the decomposed weights, or over the whole model."""

    params_before: int
    params_after: int
    bytes_before: int
    bytes_after: int
    params_kept: float
    compression_factor: float
    multiply_adds_before: int
    multiply_adds_after: int


@dataclass(frozen=True)
class CutSpectrum:
    """Singular values at one cut of a train, at most `SPECTRUM_POINTS` of them, and its rank.

    `indices` count from 0; the value at index `rank` is the first one discarded.
    """

    indices: tuple[int, ...]
    values: tuple[float, ...]
    rank: int


@dataclass(frozen=True)
class Measured:
    """What the stored form of a weight loses, and the spectrum it was cut from."""

    relative_error: float
    gate_errors: tuple[float, ...]
    spectrum: tuple[CutSpectrum, ...]


@dataclass(frozen=True)
class WeightReport:
    """One weight whose numbers changed.

    `relative_error` is Frobenius, in float64, of what was really stored; `gate_errors` the same for
    each gate of a recurrent weight. `spectrum` has one entry for each cut.
    """

    name: str
    names: tuple[str, ...]
    role: str
    format: str
    row_modes: tuple[int, ...]
    column_modes: tuple[int, ...]
    ranks: tuple[int, ...]
    store: str
    params_before: int
    params_after: int
    bytes_before: int
    bytes_after: int
    multiply_adds_before: int
    multiply_adds_after: int
    relative_error: float
    gate_errors: tuple[float, ...]
    spectrum: tuple[CutSpectrum, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class KeptReport:
    """One tensor that was kept as it is, and why."""

    name: str
    params: int
    bytes: int
    why: str


@dataclass(frozen=True)
class Report:
    """Everything the user is told about one compressed model; times and paths are never in it.

    `totals` has the scopes "weights" (those that shared the budget) and "model" (all tensors).
    `metrics`, `bench`, `control` and `calibration` are None until something measured them;
    `finetune` is None unless the model was trained after decomposition.
    """

    ttcompress: str
    source: Json
    recipe: Json
    totals: Mapping[str, Scope]
    weights: tuple[WeightReport, ...]
    kept: tuple[KeptReport, ...]
    notes: tuple[str, ...] = ()
    metrics: Json | None = None
    drift: Json = field(default_factory=dict)
    limits: tuple[Json, ...] = ()
    finetune: Json | None = None
    bench: Json | None = None
    control: Json | None = None
    calibration: Json | None = None

    def as_json(self) -> Json:
        """Plain dicts and lists, in the order of the fields."""
        document: Json = _plain(self)
        return document

    @classmethod
    def from_json(cls, document: Json) -> Report:
        """Read back what `as_json` gave.

        Raises:
            KeyError, TypeError: the document is not a report (callers name the file).
        """
        known = {f.name for f in fields(cls)} - {"totals", "weights", "kept"}
        rest = {key: _tuples(document[key]) for key in known if key in document}
        return cls(
            totals={name: Scope(**scope) for name, scope in document["totals"].items()},
            weights=tuple(_weight(entry) for entry in document["weights"]),
            kept=tuple(KeptReport(**entry) for entry in document["kept"]),
            **rest,
        )


def _weight(entry: Json) -> WeightReport:
    spectrum = tuple(
        CutSpectrum(**{key: _tuples(value) for key, value in cut.items()})
        for cut in entry["spectrum"]
    )
    plain = {key: _tuples(value) for key, value in entry.items() if key != "spectrum"}
    return WeightReport(spectrum=spectrum, **plain)


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    if hasattr(value, "__dataclass_fields__"):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value
