"""What weights take in the flash of a device that runs C, and how they are multiplied there.

It all follows from shapes, so a plan can count it, and `targets.c` writes what is counted here.
Matrices are (rows, columns), or two factors of a middle rank; `Bits` are those of a value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from ttcompress.model.weights import Weight
from ttcompress.planning.formats import Layout
from ttcompress.stores import STORES
from ttcompress.stores.floats import FLOATS

Bits = Literal[4, 8, 32]

ARITHMETIC: dict[Bits, str] = {32: "none", 8: "int8", 4: "int4"}
"""What `--quantize` calls each number of bits."""

PADDING = 64
"""Bytes at the end of each array that the kernel may read."""

UNITS, ROWS = 16, 64
"""Units of a layer with gates, or rows of another matrix, in a strip."""

EIGHT = 8
"""Columns that are stored together: a rank takes as many bytes as the next multiple of it."""

FIXED = 3400
"""A product's fixed cost, in bytes of weights that are read in the same time: rounding a vector,
and starting a loop. Measured in int8 with AVX-512 VNNI, by the rank at which two factors took as
long as the matrix: with 64 units it had 3,300 bytes more, and with 32 units (4,096 bytes) factors
were slower at every rank.
"""


def bits_of(store: str) -> Bits:
    """The bits that C computes in for a recipe's `store`: 4 for int4, float for floats, else 8.

    >>> bits_of("auto"), bits_of("coded"), bits_of("int4"), bits_of("float16")
    (8, 8, 4, 32)
    """
    if store == "int4":
        return 4
    return 32 if STORES.get(store) in FLOATS else 8


def bits_for(weight: Weight, bits: Bits) -> Bits:
    """The bits of one weight: tables and linear layers have 8 where recurrent weights have 4."""
    return 8 if bits == 4 and weight.role != "recurrent" else bits


def held_bytes(layout: Layout, ranks: Sequence[int], bits: Bits, gates: int = 1) -> int:
    """Bytes in flash of a weight in this layout: two factors where they are faster, or the matrix.

    Args:
        layout: an MPS has factors, whatever its modes; all else becomes a matrix.
        ranks: of the layout.
        bits: of a value.
        gates: blocks of rows.
    """
    rows, columns = layout.shape
    rank = None if layout.middle is None else ranks[layout.middle]
    if rank is not None and not factors_pay(rows, columns, rank):
        rank = None
    return flash_bytes(rows, columns, bits, rank, gates)


def flash_bytes(
    rows: int, columns: int, bits: Bits, rank: int | None = None, gates: int = 1
) -> int:
    """Bytes of a weight in the arrays of an export, scales and padding included.

    >>> flash_bytes(1024, 256, 8)
    266368
    >>> flash_bytes(1024, 256, 8, rank=32)
    45440
    """
    if rank is None:
        scales = columns if bits == 4 and gates > 1 else rows
        return _codes(rows, columns, bits) + _scales(scales, bits)
    up = _codes(rows, rank, bits) + (0 if bits == 4 else _scales(rows, bits))
    return up + _codes(rank, columns, bits) + _scales(rank, bits)


def _codes(rows: int, columns: int, bits: Bits) -> int:
    return rows * -(-columns // EIGHT) * bits + PADDING


def _scales(count: int, bits: Bits) -> int:
    return 0 if bits == 32 else 4 * count + PADDING


def factors_pay(rows: int, columns: int, rank: int) -> bool:
    """Whether two factors are faster than the matrix.

    Reading the weights decides, and the second product's fixed cost.
    """
    return rank * (rows + columns) + FIXED < rows * columns
