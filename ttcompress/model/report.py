"""The report as a value: what was done to a model and what it cost. No torch, no Rich.

`Report.as_json()` is the document that `ttcompress report --json` prints and others rely on; it is
stored in the artifact as it is, and `from_json` reads it back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from math import inf
from typing import TYPE_CHECKING, Any

from typing_extensions import TypedDict

from ttcompress.system.json import finite

if TYPE_CHECKING:
    from pydantic import TypeAdapter

Json = dict[str, Any]
Number = int | float
SPECTRUM_POINTS = 64
"""Enough for a picture, and few enough to be a small part of a small file."""


OWN_SIZE = "max_size"
"""The limit on the size of the file that holds the report: the verdict on it is not in there."""


class Provenance(TypedDict):
    """What was compressed: the file's hash and its bytes."""

    sha256: str
    bytes: int


class Asked(TypedDict):
    """The recipe as written, "" where it was built from Python, and as in force."""

    text: str
    effective: Json


class Change(TypedDict):
    """A metric before and after; `drop` is how much it worsened, in its own unit."""

    before: Number
    after: Number
    drop: Number
    higher_is_better: bool


class Verdict(TypedDict):
    """A limit, what was found, and whether it was kept."""

    name: str
    limit: Number
    value: Number
    ok: bool


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
class WeightFacts:
    """What a plan knows of a weight whose numbers change, and a report repeats."""

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


@dataclass(frozen=True)
class WeightReport(WeightFacts):
    """One weight whose numbers changed.

    `relative_error` is Frobenius, in float64, of what was really stored; `gate_errors` the same for
    each gate of a recurrent weight. `spectrum` has one entry for each cut.
    """

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


BLIND = "fine-tuned without the original: errors and drift are those before"
"""The note of a report whose errors a training made untrue."""


@dataclass(frozen=True)
class Report:
    """Everything the user is told about one compressed model; times and paths are never in it.

    `totals` has the scopes "weights" (those that shared the budget) and "model" (all tensors).
    `metrics`, `bench`, `control` and `calibration` are None until something measured them;
    `finetune` is None unless the model was trained after decomposition.
    """

    ttcompress: str
    source: Provenance
    recipe: Asked
    totals: Mapping[str, Scope]
    weights: tuple[WeightReport, ...]
    kept: tuple[KeptReport, ...]
    notes: tuple[str, ...] = ()
    metrics: Mapping[str, Change] | None = None
    drift: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    limits: tuple[Verdict, ...] = ()
    finetune: Json | None = None
    bench: Json | None = None
    control: Json | None = None
    calibration: Json | None = None

    def as_json(self) -> Json:
        """Plain dicts and lists, in the order of the fields; an infinite error is None."""
        document: Json = finite(_plain(self))
        return document

    @classmethod
    def from_json(cls, document: Json) -> Report:
        """Read back what `as_json` gave; keys of a later version are passed by.

        Raises:
            ValueError: the document is not a report (callers name the file).
        """
        return _adapter().validate_python(with_infinities(document))


@cache
def _adapter() -> TypeAdapter[Report]:
    from pydantic import TypeAdapter  # heavy, and needed only where a file is read

    return TypeAdapter(Report)


def with_infinities(document: Any) -> Any:
    """A report's JSON with infinity where an error or a drift is None.

    Whatever else is odd in it is left as it is, to be refused.
    """
    if not isinstance(document, dict):
        return document
    read = dict(document)
    if isinstance(weights := document.get("weights"), list):
        read["weights"] = [_errors_read(one) if isinstance(one, dict) else one for one in weights]
    if isinstance(drift := document.get("drift"), dict):
        read["drift"] = {
            name: {step: inf if v is None else v for step, v in found.items()}
            if isinstance(found, dict)
            else found
            for name, found in drift.items()
        }
    return read


def judge_own_size(report: Json, file_bytes: int) -> Json:
    """The report with the verdict on the size of the file that it was read from.

    Whatever else is odd in it is left as it is, to be refused.
    """
    limits = report.get("limits")
    if not isinstance(limits, list):
        return report
    judged = [
        limit | {"value": file_bytes, "ok": file_bytes <= limit["limit"]}
        if isinstance(limit, dict)
        and limit.get("name") == OWN_SIZE
        and isinstance(limit.get("limit"), int | float)
        else limit
        for limit in limits
    ]
    return report | {"limits": judged}


def _errors_read(weight: Json) -> Json:
    whole, gates = weight.get("relative_error", 0.0), weight.get("gate_errors", [])
    read = weight | {"relative_error": inf if whole is None else whole}
    if isinstance(gates, list):
        read["gate_errors"] = [inf if gate is None else gate for gate in gates]
    return read


def _plain(value: Any) -> Any:
    if hasattr(value, "__dataclass_fields__"):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def times_fewer(before: int, after: int) -> float:
    """How many times smaller; 1 where there was nothing."""
    return before / after if after else 1.0
