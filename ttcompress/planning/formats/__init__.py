"""The formats that a weight can be written in, described by shapes alone, without torch.

`FORMATS` is the registry. A format's other half, which works on tensors, is registered under the
same name in `ttcompress.trains.formats`. To add one, write a `Layout` and a `Train`, and add
each to its registry: recipes, plans, reports and artifacts then know it.
"""

from __future__ import annotations

from typing import Final

from ttcompress.planning.formats.dense import DenseLayout as DenseLayout
from ttcompress.planning.formats.layout import Layout as Layout
from ttcompress.planning.formats.mpo import MpoLayout as MpoLayout
from ttcompress.planning.formats.mps import MpsLayout as MpsLayout

FORMATS: dict[str, type[Layout]] = {one.format: one for one in (MpsLayout, MpoLayout, DenseLayout)}
"""Every format by its name, in the order in which `auto` tries them."""

AUTO: Final = "auto"
"""The word in a recipe that lets the program choose among all formats."""

KEEP: Final = "keep"
"""The word in a recipe for a weight that stays as it is; not a format, since nothing is done."""


def formats_named(name: str) -> tuple[type[Layout], ...]:
    """The formats that a recipe's word stands for; `KEEP` stands for none.

    >>> [one.format for one in formats_named("auto")]
    ['mps', 'mpo', 'dense']
    """
    if name == AUTO:
        return tuple(FORMATS.values())
    return () if name == KEEP else (FORMATS[name],)


def decomposing() -> tuple[str, ...]:
    """The names of the formats that write a matrix as a product of cores."""
    return tuple(name for name, one in FORMATS.items() if one.decomposes)


def is_whole(name: str | None) -> bool:
    """Whether a word of a recipe leaves the matrix whole, without ranks: `dense` or `keep`."""
    return name == KEEP or (name in FORMATS and not FORMATS[name].decomposes)
