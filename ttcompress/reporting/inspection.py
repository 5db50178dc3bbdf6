"""Shows the content of a checkpoint: its layers, its weights with their spectra, and remarks."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from math import ceil

from ttcompress.model.weights import NO_WEIGHT, RecurrentStack
from ttcompress.recipe.wording import counted
from ttcompress.reporting.left_out import left_out_remarks
from ttcompress.reporting.table import Column, Table, tabulate
from ttcompress.results.inspection import ENERGIES, InspectedWeight, Inspection
from ttcompress.system.text import shape_text

LEVELS = "▁▂▃▄▅▆▇█"


def layers_table(layers: Iterable[RecurrentStack]) -> Table:
    """One row for each recurrent module."""

    def also(stack: RecurrentStack) -> str:
        words = {
            "bidirectional": stack.bidirectional,
            f"projection {stack.proj_size}": stack.proj_size > 0,
            "no bias": not stack.bias,
            "cell": stack.cell,
            "weight-drop": stack.raw,
        }
        return ", ".join(word for word, holds in words.items() if holds) or "-"

    return tabulate(
        layers,
        {
            Column("layer"): lambda stack: stack.prefix.rstrip(".") or ".",
            Column("kind"): lambda stack: stack.kind,
            Column("input", right=True): lambda stack: str(stack.input_size),
            Column("hidden", right=True): lambda stack: str(stack.hidden_size),
            Column("layers", right=True): lambda stack: str(stack.num_layers),
            Column("also"): also,
        },
    )


def spectra_table(weights: Iterable[InspectedWeight]) -> Table:
    """One row for each weight: its size, and the ranks that hold its energy."""

    def rank(energy: float, weight: InspectedWeight) -> str:
        return str(weight.ranks[f"{energy:.0%}"])

    def quarters(weight: InspectedWeight) -> str:
        return " ".join(f"{value:.2f}" for value in weight.fall[2:7:2]) or "zero"

    return tabulate(
        weights,
        {
            Column("weight", name=True): lambda weight: " = ".join(weight.names),
            Column("role", name=True): lambda weight: weight.role,
            Column("shape", right=True, name=True): lambda weight: shape_text(weight.shape),
            Column("bytes", right=True): lambda weight: weight.bytes,
            **{Column(f"{energy:.0%}", right=True): partial(rank, energy) for energy in ENERGIES},
            Column("falls to", right=True, name=True, spare=1): quarters,
            Column("spectrum", name=True): lambda weight: (
                "".join(map(_level, weight.fall)) or "zero"
            ),
        },
    )


def inspection_remarks(found: Inspection) -> tuple[str, ...]:
    """The legend, total sizes, the tensors that are not weights, and the checkpoint's notes."""
    plain = [other for other in found.others if other.why == NO_WEIGHT]
    others = sum(other.bytes for other in plain)
    dtypes = ", ".join(dict.fromkeys(weight.dtype for weight in found.weights))
    return (
        *(() if found.layers else ("no recurrent layer was recognised",)),
        "90%, 95%, 99%: the rank that holds this share of the energy (the squared norm)",
        "falls to: singular values at 1/4, 1/2 and 3/4 of the spectrum, relative to the largest",
        "spectrum: nine singular values, evenly spaced, drawn relative to the largest",
        f"weights are {dtypes}",
        f"{found.params:,} params, {found.tensor_bytes:,} bytes of tensors, "
        f"{found.file_bytes:,} bytes of file",
        f"not weights: {counted(len(plain), 'other tensor')}, {others:,} bytes",
        *(
            f"{other.name} ({shape_text(other.shape)}, {other.bytes:,} bytes): {other.why}"
            for other in found.others
            if other.why != NO_WEIGHT
        ),
        *left_out_remarks(found.left_out),
        *found.notes,
    )


def _level(value: float) -> str:
    """A block as high as a fraction of the largest value, in eighths.

    >>> _level(1.0), _level(0.5), _level(0.01), _level(0.0)
    ('█', '▄', '▁', '▁')
    """
    return LEVELS[max(0, ceil(value * len(LEVELS)) - 1)]
