"""What a matrix takes in flash and in time, from its shape alone: for planning, so no torch.

Matrices are (rows, columns), or two factors of a middle rank; `bits` are 32, 8 or 4.
"""

from __future__ import annotations

from typing import Literal

Bits = Literal[4, 8, 32]

PADDING = 64
"""Bytes at the end of each array that the kernel may read."""

UNITS, ROWS = 16, 64
"""Units of a layer with gates, or rows of another matrix, in a strip."""

FIXED = 2500
"""A product's fixed cost, in bytes of weights that are read in the same time: rounding a vector,
and starting a loop. An estimate, not a fit: it only decides where both ways are nearly as fast.
"""


def flash_bytes(rows: int, columns: int, bits: Bits, rank: int | None = None) -> int:
    """Bytes of a recurrent weight in the arrays of an export, scales and padding included.

    >>> flash_bytes(1024, 256, 8)
    266368
    >>> flash_bytes(1024, 256, 8, rank=32)
    45440
    """
    if rank is None:
        return _codes(rows, columns, bits) + _scales(columns if bits == 4 else rows, bits)
    up = _codes(rows, rank, bits) + (0 if bits == 4 else _scales(rows, bits))
    return up + _codes(rank, columns, bits) + _scales(rank, bits)


def _codes(rows: int, columns: int, bits: Bits) -> int:
    return rows * -(-columns // 8) * bits + PADDING


def _scales(count: int, bits: Bits) -> int:
    return 0 if bits == 32 else 4 * count + PADDING


def factors_pay(rows: int, columns: int, rank: int, gates: int = 1) -> bool:
    """Whether two factors are faster than the matrix.

    Reading the weights decides, and the second product's fixed cost.
    """
    return rank * (rows + columns) + FIXED < rows * columns
