"""What is inside a checkpoint, as a value: facts and spectra enter, an `Inspection` leaves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from math import ceil

from ttcompress.plan.spectrum import Spectrum
from ttcompress.recipe.wording import counted
from ttcompress.report.model import Json
from ttcompress.report.tables import Column, Table
from ttcompress.weights import OtherTensor, RecurrentStack, Weight

ENERGIES = (0.90, 0.95, 0.99)
LEVELS = "▁▂▃▄▅▆▇█"
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


def layers_table(layers: Iterable[RecurrentStack]) -> Table:
    """One row for each recurrent module."""
    columns = (
        Column("layer"),
        Column("kind"),
        Column("input", right=True),
        Column("hidden", right=True),
        Column("layers", right=True),
        Column("also"),
    )
    return Table(columns, tuple(map(_layer_row, layers)))


def spectra_table(weights: Iterable[InspectedWeight]) -> Table:
    """One row for each weight: its size, and the ranks that hold its energy."""
    columns = (
        Column("weight", name=True),
        Column("role", name=True),
        Column("shape", right=True, name=True),
        Column("bytes", right=True),
        *(Column(f"{energy:.0%}", right=True) for energy in ENERGIES),
        Column("falls to", right=True, name=True, spare=1),
        Column("spectrum", name=True),
    )
    return Table(columns, tuple(map(_row, weights)))


def inspection_remarks(found: Inspection) -> tuple[str, ...]:
    """Sizes in all, the tensors that are no weights, and the checkpoint's notes."""
    others = sum(other.bytes for other in found.others)
    dtypes = ", ".join(dict.fromkeys(weight.dtype for weight in found.weights))
    return (
        "90%, 95%, 99%: the rank that holds as much of the energy (the squared norm)",
        "falls to: singular values at 1/4, 1/2 and 3/4 of the spectrum, the largest being 1",
        "spectrum: singular values at every eighth of it, in eighths of the largest",
        f"weights are {dtypes}",
        f"{found.params:,} params, {found.tensor_bytes:,} bytes of tensors, "
        f"{found.file_bytes:,} bytes of file",
        f"beside the weights: {counted(len(found.others), 'tensor')}, {others:,} bytes",
        *found.notes,
    )


def _row(weight: InspectedWeight) -> tuple[str, ...]:
    rows, columns = weight.shape
    quarters = weight.fall[2:7:2]
    return (
        " = ".join(weight.names),
        weight.role,
        f"{rows} x {columns}",
        f"{weight.bytes:,}",
        *(str(rank) for rank in weight.ranks.values()),
        " ".join(f"{value:.2f}" for value in quarters) or "zero",
        "".join(map(_level, weight.fall)) or "zero",
    )


def _level(value: float) -> str:
    """A block as high as a fraction of the largest value, in eighths.

    >>> _level(1.0), _level(0.5), _level(0.01), _level(0.0)
    ('█', '▄', '▁', '▁')
    """
    return LEVELS[max(0, ceil(value * len(LEVELS)) - 1)]


def _layer_row(stack: RecurrentStack) -> tuple[str, ...]:
    also = [
        word
        for word, holds in (
            ("bidirectional", stack.bidirectional),
            (f"projection {stack.proj_size}", stack.proj_size > 0),
            ("no bias", not stack.bias),
            ("cell", stack.cell),
            ("weight-drop", stack.raw),
        )
        if holds
    ]
    return (
        stack.prefix.rstrip(".") or ".",
        stack.kind,
        str(stack.input_size),
        str(stack.hidden_size),
        str(stack.num_layers),
        ", ".join(also) or "-",
    )
