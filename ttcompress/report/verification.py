"""What `verify` found, as a value: errors as reported and as computed again, and what differs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import isclose

from ttcompress.recipe.wording import counted
from ttcompress.report.model import Json
from ttcompress.report.tables import Column, Table

RELATIVE_TOLERANCE = 1e-6
ABSOLUTE_TOLERANCE = 1e-9
"""Two ways of summing in float64 agree far better; a wrong bit anywhere shows far more."""


@dataclass(frozen=True)
class CheckedWeight:
    """The errors of one weight as reported and as computed again."""

    name: str
    reported: float
    recomputed: float
    gates_reported: tuple[float, ...]
    gates_recomputed: tuple[float, ...]

    @property
    def agrees(self) -> bool:
        """Whether both are the same, to the rounding error of the computation."""
        reported = (self.reported, *self.gates_reported)
        recomputed = (self.recomputed, *self.gates_recomputed)
        return len(reported) == len(recomputed) and all(map(_close, reported, recomputed))

    @property
    def difference(self) -> str:
        """In words: the errors of the whole weight, or those of its gates if these differ alone."""
        if not _close(self.reported, self.recomputed):
            said, made = f"error {self.reported:.6g}", f"{self.recomputed:.6g}"
        else:
            said = f"gate errors {_listed(self.gates_reported)}"
            made = _listed(self.gates_recomputed)
        return f"{self.name}: the report says {said}, the files make {made}"


@dataclass(frozen=True)
class Verification:
    """What was checked, and in words whatever differs; no words, and everything agrees."""

    weights: tuple[CheckedWeight, ...]
    kept: int
    differences: tuple[str, ...]

    @property
    def agrees(self) -> bool:
        """Whether the artifact is what its report says."""
        return not self.differences

    def as_json(self) -> Json:
        """Plain dicts, in the order of the fields."""
        tolerance = {"relative": RELATIVE_TOLERANCE, "absolute": ABSOLUTE_TOLERANCE}
        return {"agrees": self.agrees, "tolerance": tolerance, **asdict(self)}


def verification_table(found: Verification) -> Table:
    """One row for each weight that was checked."""
    columns = (
        Column("weight", name=True),
        Column("error reported", right=True),
        Column("computed again", right=True),
        Column("agrees"),
    )
    return Table(columns, tuple(map(_row, found.weights)))


def verification_remarks(found: Verification) -> tuple[str, ...]:
    """What was checked besides, what differs, and the verdict."""
    compared = f"{found.kept} kept tensors compared bit for bit"
    if not found.kept:
        compared = "no kept tensor compared: they were trained, or there are none"
    beside = f"{compared}; the source is the model given"
    count = counted(len(found.differences), "difference")
    verdict = "verified" if found.agrees else f"NOT VERIFIED: {count}"
    return (beside, *found.differences, verdict)


def _row(weight: CheckedWeight) -> tuple[str, ...]:
    figures = (f"{weight.reported:.9g}", f"{weight.recomputed:.9g}")
    return (weight.name, *figures, "yes" if weight.agrees else "NO")


def _close(reported: float, recomputed: float) -> bool:
    return isclose(reported, recomputed, rel_tol=RELATIVE_TOLERANCE, abs_tol=ABSOLUTE_TOLERANCE)


def _listed(errors: tuple[float, ...]) -> str:
    return ", ".join(f"{error:.6g}" for error in errors)
