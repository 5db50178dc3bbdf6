"""What `inspect` returns: the content of a checkpoint, and the spectrum of each weight."""

from __future__ import annotations

from dataclasses import dataclass

from ttcompress.model.report import Json, LeftOut
from ttcompress.model.weights import OtherTensor, RecurrentStack, Weight
from ttcompress.planning.spectrum import Spectrum
from ttcompress.system.json import plain

ENERGIES = (0.90, 0.95, 0.99)
_EIGHTHS = 8


@dataclass(frozen=True, kw_only=True)
class InspectedWeight(Weight):
    """One weight and how its spectrum falls.

    `ranks` hold 90, 95 and 99 % of the energy (the squared norm), out of `full_rank`. `fall` are
    singular values as fractions of the largest, at every eighth of the full rank: where they fall
    fast, a low rank is accurate.
    """

    full_rank: int
    ranks: dict[str, int]
    fall: tuple[float, ...]

    def as_json(self) -> Json:
        """Plain values: what the weight is, its sizes, and then its spectrum."""
        found = plain(self)
        spectrum = {key: found.pop(key) for key in ("full_rank", "ranks", "fall")}
        return {**found, "params": self.params, "bytes": self.bytes, **spectrum}


@dataclass(frozen=True)
class Inspection:
    """The content of a checkpoint: its recurrent layers, weights and other tensors.

    `file_bytes` is for the whole file, including what is left out, such as optimizer state;
    `tensor_bytes` only for the model's tensors.
    """

    container: str
    sha256: str
    file_bytes: int
    tensor_bytes: int
    params: int
    layers: tuple[RecurrentStack, ...]
    weights: tuple[InspectedWeight, ...]
    others: tuple[OtherTensor, ...]
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]

    def as_json(self) -> Json:
        """Plain dicts, in the order of the fields."""
        return {**plain(self), "weights": [weight.as_json() for weight in self.weights]}


def inspect_weight(weight: Weight, spectrum: Spectrum) -> InspectedWeight:
    """Summarise the singular values of a weight's matrix."""
    values = spectrum.values
    fall: tuple[float, ...] = ()
    if values and values[0] != 0.0:
        count = len(values)
        marks = (min(count - 1, k * count // _EIGHTHS) for k in range(_EIGHTHS + 1))
        fall = tuple(values[mark] / values[0] for mark in marks)
    return InspectedWeight(
        **vars(weight),
        full_rank=len(values),
        ranks={f"{energy:.0%}": spectrum.rank_for_energy(energy) for energy in ENERGIES},
        fall=fall,
    )
