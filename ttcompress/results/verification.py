"""What `verify` returns: errors as reported and as computed again, and what differs."""

from __future__ import annotations

from dataclasses import dataclass
from math import isclose

from ttcompress.model.report import Json
from ttcompress.system.json import plain

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
        return f"{self.name}: the report says {said}, but the files give {made}"


@dataclass(frozen=True)
class Verification:
    """What was checked: the weights, how many kept tensors, and in words whatever differs."""

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
