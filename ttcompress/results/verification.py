"""What `verify` returns: reported and recomputed errors, and every difference."""

from __future__ import annotations

from dataclasses import dataclass
from math import isclose, isnan, nan

from ttcompress.model.report import Json
from ttcompress.system.json import plain

RELATIVE_TOLERANCE = 1e-6
ABSOLUTE_TOLERANCE = 1e-9
"""Two ways of summing in float64 agree far better; a wrong bit anywhere shows far more."""


@dataclass(frozen=True)
class CheckedWeight:
    """The reported and the recomputed errors of one weight."""

    name: str
    reported: float
    recomputed: float
    gates_reported: tuple[float, ...]
    gates_recomputed: tuple[float, ...]
    worst_row_reported: float = nan  # NaN in reports of format version 1
    worst_row_recomputed: float = nan

    @property
    def agrees(self) -> bool:
        """Whether both are equal, up to rounding."""
        reported = (self.reported, *self.gates_reported)
        recomputed = (self.recomputed, *self.gates_recomputed)
        same = len(reported) == len(recomputed) and all(map(_close, reported, recomputed))
        return same and self._row_agrees

    @property
    def difference(self) -> str:
        """Describes the differing errors: of the whole weight, of a row, or else of its gates."""
        if not _close(self.reported, self.recomputed):
            said, made = f"error {self.reported:.6g}", f"{self.recomputed:.6g}"
        elif not self._row_agrees:
            said = f"worst row's error {self.worst_row_reported:.6g}"
            made = f"{self.worst_row_recomputed:.6g}"
        else:
            said = f"gate errors {_listed(self.gates_reported)}"
            made = _listed(self.gates_recomputed)
        return f"{self.name}: the report says {said}, but the files give {made}"

    @property
    def _row_agrees(self) -> bool:
        unknown = isnan(self.worst_row_reported)
        return unknown or _close(self.worst_row_reported, self.worst_row_recomputed)


@dataclass(frozen=True)
class Verification:
    """The checked weights, the number of kept tensors, and a sentence for each difference."""

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
        return {"agrees": self.agrees, "tolerance": tolerance, **plain(self)}


def _close(reported: float, recomputed: float) -> bool:
    return isclose(reported, recomputed, rel_tol=RELATIVE_TOLERANCE, abs_tol=ABSOLUTE_TOLERANCE)


def _listed(errors: tuple[float, ...]) -> str:
    return ", ".join(f"{error:.6g}" for error in errors)
