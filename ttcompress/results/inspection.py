"""What `inspect` returns: the content of a checkpoint, and how fast each spectrum falls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from ttcompress.model.report import Json
from ttcompress.model.weights import OtherTensor, RecurrentStack, Weight
from ttcompress.planning.spectrum import Spectrum

ENERGIES = (0.90, 0.95, 0.99)


_EIGHTHS = 8


@dataclass(frozen=True)
class InspectedWeight:
    """One weight and how its spectrum falls.

    `ranks` are those that hold 90, 95 and 99 % of the energy (the squared norm), of `full_rank`.
    `fall` are singular values as fractions of the largest, at every eighth of the full rank: a
    spectrum that falls fast is one that a low rank serves well.
    """

    name: str
    names: tuple[str, ...]
    role: str
    shape: tuple[int, int]
    dtype: str
    gates: int
    params: int
    bytes: int
    full_rank: int
    ranks: dict[str, int]
    fall: tuple[float, ...]


@dataclass(frozen=True)
class Inspection:
    """The content of a checkpoint: its recurrent layers, weights and other tensors.

    `file_bytes` is the whole file, `tensor_bytes` the model's tensors: optimizer state is in the
    one and not in the other.
    """

    container: str
    sha256: str
    file_bytes: int
    tensor_bytes: int
    params: int
    layers: tuple[RecurrentStack, ...]
    weights: tuple[InspectedWeight, ...]
    others: tuple[OtherTensor, ...]
    notes: tuple[str, ...]

    def as_json(self) -> Json:
        """Plain dicts, in the order of the fields."""
        return asdict(self)


def inspected(weight: Weight, spectrum: Spectrum) -> InspectedWeight:
    """One weight with the singular values of its matrix."""
    return InspectedWeight(
        name=weight.name,
        names=weight.names,
        role=weight.role,
        shape=weight.shape,
        dtype=weight.dtype,
        gates=weight.gates,
        params=weight.params,
        bytes=weight.bytes,
        full_rank=len(spectrum.values),
        ranks={f"{energy:.0%}": spectrum.rank_for_energy(energy) for energy in ENERGIES},
        fall=_fall(spectrum.values),
    )


def _fall(values: Sequence[float]) -> tuple[float, ...]:
    """The values at 0/8, 1/8 .. 7/8 and at the end, over the first."""
    if not values or values[0] == 0.0:
        return ()
    last = len(values) - 1
    marks = [min(last, k * len(values) // _EIGHTHS) for k in range(_EIGHTHS + 1)]
    return tuple(values[mark] / values[0] for mark in marks)
