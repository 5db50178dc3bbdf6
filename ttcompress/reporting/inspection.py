"""What is inside a checkpoint, as a value: facts and spectra enter, an `Inspection` leaves."""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil

from ttcompress.model.weights import RecurrentStack
from ttcompress.recipe.wording import counted
from ttcompress.reporting.table import Column, Table
from ttcompress.results.inspection import ENERGIES, InspectedWeight, Inspection

LEVELS = "▁▂▃▄▅▆▇█"


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
