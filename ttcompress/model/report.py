"""The report of a compression, `Report`, and of a plan, `PlanReport`, as plain values.

`Report.as_json()` is the document that `ttcompress report --json` prints and that other programs
rely on. The artifact stores it unchanged, and `from_json` reads it back. Both kinds of
report are made by `ttcompress.results.from_plan`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import inf, isnan, nan
from typing import Any

from typing_extensions import TypedDict

from ttcompress.system.json import finite, plain, validate

Json = dict[str, Any]
Number = int | float
SPECTRUM_POINTS = 64
"""Enough for a picture, and few enough to be a small part of a small file."""


OWN_SIZE = "max_size"
"""The limit on the size of the file that holds the report: the file does not store its verdict."""


class Provenance(TypedDict):
    """The file that was compressed: its hash and its size."""

    sha256: str
    bytes: int


class RecipeUsed(TypedDict):
    """The recipe as written, "" if it was made in Python, and with the values that applied."""

    text: str
    effective: Json


class Change(TypedDict):
    """A metric before and after; `drop` is how much it worsened, in its own unit."""

    before: Number
    after: Number
    drop: Number
    higher_is_better: bool


class Verdict(TypedDict):
    """A limit, the measured value, and whether the limit is met."""

    name: str
    limit: Number
    value: Number
    ok: bool


@dataclass(frozen=True)
class Totals:
    """Before and after over a scope: the weights that share the budget, or the whole model.

    `params_kept` is the fraction of the values that are left, `compression_factor` is bytes before
    over bytes after; both are 1 if there was nothing.
    """

    params_before: int
    params_after: int
    bytes_before: int
    bytes_after: int
    params_kept: float = field(init=False)
    compression_factor: float = field(init=False)
    multiply_adds_before: int
    multiply_adds_after: int

    def __post_init__(self) -> None:
        kept = self.params_after / self.params_before if self.params_before else 1.0
        # They are fields, not properties, because the JSON shows them; a frozen class sets them so.
        object.__setattr__(self, "params_kept", kept)
        factor = times_fewer(self.bytes_before, self.bytes_after)
        object.__setattr__(self, "compression_factor", factor)

    @property
    def fewer_multiply_adds(self) -> float:
        """How many times fewer multiply-adds a time step takes."""
        return times_fewer(self.multiply_adds_before, self.multiply_adds_after)


@dataclass(frozen=True)
class Flash:
    """Bytes in the flash of a device that runs the model as C.

    `weights` are those of the weights that share the budget, and `model` those of all constants, as
    `export` reports them; None where that was not asked for.
    """

    weights: int
    model: int | None = None


@dataclass(frozen=True)
class CutSpectrum:
    """Singular values at one cut of a train, at most `SPECTRUM_POINTS` of them, and its rank.

    `indices` count from 0; the value at index `rank` is the first one discarded.
    """

    indices: tuple[int, ...]
    values: tuple[float, ...]
    rank: int


@dataclass(frozen=True)
class Errors:
    """What the stored form of a weight loses; see `WeightReport`."""

    relative_error: float
    gate_errors: tuple[float, ...]
    worst_row_error: float
    worst_element_error: float


@dataclass(frozen=True)
class Measured:
    """The errors of a stored weight, and the spectrum it was cut from."""

    errors: Errors
    spectrum: tuple[CutSpectrum, ...]


@dataclass(frozen=True)
class WeightReport:
    """One weight whose numbers change, in a plan and in a report.

    `relative_error` is the Frobenius error, in float64: in a report that of the stored weight, in a
    plan the one that the spectra predict, NaN if none were read. `gate_errors` are the same for
    each gate of a recurrent weight, and `spectrum` has an entry for each cut: both are empty in a
    plan. `worst_row_error` is the largest relative error of any row, NaN in a plan and in files of
    format version 1; `worst_element_error` the largest error of a single value, relative to the
    largest value, None in a plan and in older files. `tried` lists the trains that a plan compared,
    each with its modes. `in_budget` is False for a weight that a rule takes out of the budget.
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
    worst_row_error: float = nan
    gate_errors: tuple[float, ...] = ()
    worst_element_error: float | None = None
    spectrum: tuple[CutSpectrum, ...] = ()
    notes: tuple[str, ...] = ()
    tried: tuple[Json, ...] = ()
    in_budget: bool = True


@dataclass(frozen=True)
class KeptReport:
    """One tensor that was kept as it is, and why."""

    name: str
    params: int
    bytes: int
    why: str


@dataclass(frozen=True)
class LeftOut:
    """Something in the source's file that is not in the result: where, how much, and what it is.

    `bytes` are those of its tensors that the result does not hold in another place. They are 0 for
    content that is no tensor, whose size in the file is not known.
    """

    key: str
    tensors: int
    bytes: int
    why: str


ANOTHER_MODEL = "another state dict"
OPTIMIZER = "optimizer state"
UNUSED = "stored values that no tensor of the model uses"
"""Why something is left out."""


BLIND = "fine-tuned without the original: errors and drift are from before the training"
"""The note of a report whose errors no longer hold because of a training."""


@dataclass(frozen=True)
class BaseReport:
    """What the report of a plan and that of a compression have in common.

    `totals` has the scopes "weights" (those that shared the budget) and "model" (all tensors).
    `flash` is None unless the recipe's target is c.
    """

    ttcompress: str
    source: Provenance
    recipe: RecipeUsed
    totals: Mapping[str, Totals]
    weights: tuple[WeightReport, ...]
    kept: tuple[KeptReport, ...]
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()
    flash: Flash | None = None

    @property
    def factor(self) -> float:
        """How many times fewer bytes the weights of the budget take: in flash if there is one."""
        before = self.totals["weights"].bytes_before
        if self.flash is not None:
            return times_fewer(before, self.flash.weights)
        return self.totals["weights"].compression_factor

    def _document(self) -> Json:
        document: Json = finite(plain(self))
        if self.flash is None:
            del document["flash"]
        return document

    @property
    def comparable_bytes(self) -> int:
        """Size of the source's file without what was left out: factors of files are of this.

        At least that of the model's tensors, and at most that of the file: tensors left out may
        have been compressed in it.
        """
        whole, lost = self.source["bytes"], sum(one.bytes for one in self.left_out)
        return min(whole, max(whole - lost, self.totals["model"].bytes_before)) if lost else whole


@dataclass(frozen=True)
class PlanReport(BaseReport):
    """The report of a plan; its sizes are those that the report of the compression will have.

    Under a tolerance above 0 they may grow: measured rounding can require more ranks or bits.
    `from_spectra` says whether the weights' singular values were used for the choice.
    """

    from_spectra: bool = True

    def as_json(self) -> Json:
        """Plain dicts and lists, as `plan --json` prints them; an unknown error is None."""
        document = self._document()
        for weight in document["weights"]:
            for key in ("worst_row_error", "gate_errors", "worst_element_error", "spectrum"):
                del weight[key]
            weight["expected_error"] = weight.pop("relative_error")
            for key in ("tried", "notes"):
                weight[key] = weight.pop(key)
        first = ("ttcompress", "source", "recipe", "from_spectra")
        return {key: document[key] for key in first} | document


@dataclass(frozen=True)
class Report(BaseReport):
    """The report of one compressed model; it never contains times or paths.

    `metrics`, `bench`, `control` and `calibration` are None until they are measured;
    `finetune` is None unless the model was trained after decomposition.
    """

    metrics: Mapping[str, Change] | None = None
    drift: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    limits: tuple[Verdict, ...] = ()
    finetune: Json | None = None
    bench: Json | None = None
    control: Json | None = None
    calibration: Json | None = None

    def as_json(self) -> Json:
        """Plain dicts and lists, in the order of the fields; an infinite error is None."""
        document = self._document()
        for weight, entry in zip(self.weights, document["weights"], strict=True):
            del entry["tried"]
            if weight.in_budget:
                del entry["in_budget"]
            if isnan(weight.worst_row_error):
                del entry["worst_row_error"]
        return document

    def with_sizes(self, sizes: Mapping[str, int]) -> Report:
        """The same report with the bytes that weights, by name, take now."""
        grown = {w.name: sizes.get(w.name, w.bytes_after) - w.bytes_after for w in self.weights}
        weights = tuple(
            replace(weight, bytes_after=weight.bytes_after + grown[weight.name])
            for weight in self.weights
        )
        shares = {
            "weights": sum(grown[weight.name] for weight in weights if weight.in_budget),
            "model": sum(grown.values()),
        }
        totals = {
            scope: replace(total, bytes_after=total.bytes_after + shares.get(scope, 0))
            for scope, total in self.totals.items()
        }
        return replace(self, weights=weights, totals=totals)

    @classmethod
    def from_json(cls, document: Json) -> Report:
        """Read what `as_json` returned; keys of a later version are ignored.

        Raises:
            ValueError: the document is not a report (callers name the file).
        """
        return validate(cls, with_infinities(document))


def with_infinities(document: Any) -> Any:
    """A report's JSON with infinity where an error or a drift is None.

    Anything else that is malformed is left for validation to refuse.
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

    Anything else that is malformed is left for validation to refuse.
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
    gates, read = weight.get("gate_errors", []), dict(weight)
    for key in ("relative_error", "worst_row_error"):
        if key in read and read[key] is None:
            read[key] = inf
    if isinstance(gates, list):
        read["gate_errors"] = [inf if gate is None else gate for gate in gates]
    return read


def times_fewer(before: int, after: int) -> float:
    """How many times smaller; 1 if there was nothing."""
    return before / after if after else 1.0


def lost_share(change: Change) -> float:
    """How much worse a metric is, as a share of what it was before; below 0 if it is better.

    >>> lost_share({"before": 2.0, "after": 2.1, "drop": 0.1, "higher_is_better": False})
    0.05
    """
    drop, before = change["drop"], abs(change["before"])
    return drop / before if before else inf if drop > 0 else 0.0
