"""Frequencies of integers whose rows and columns differ in scale, and the bits that they cost.

A row of integers holds one rank component of a core, a column one place of its mode. Each row has
a class, each column an offset to it, and their sum is a step on a logarithmic scale: some 2 bits a
row and 2 bits a column, from which all frequencies follow. `fit` finds them:

    fitted = fit(codes)         # shape of the density, classes, offsets
    estimate_bits(codes)        # of the stream that `rans.encode` returns, within 1 %

Magnitudes below 16 have a symbol each; above, four symbols an octave, and raw bits say which of
their values it is. The density of a value x at scale s is (1 + |x / s|^p / 2^n)^-(2^n): a Gaussian
for p = 2 and large n, a Laplace for p = 1, with a longer tail for a small n. `frequencies`
integrates it. They must be the same on every machine, so only operations that IEEE 754 rounds
correctly decide them (no power, no logarithm), and sums are of integers. The rest of this file
only chooses, and what it chooses is stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from ttcompress.system.late import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]
    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]

ONE_BITS = 14
"""The frequencies of all symbols add up to 2**14."""

DIRECT = 16
"""The least magnitude that shares its symbol with others."""

MOST_SYMBOL = 124
"""The symbol of 2**31, the largest magnitude of an int32."""

CLASSES = 4 * 39
"""Four an octave, from a scale at which a row is all zeros, whatever its columns add."""

MOST_SHAPE = 8 * 7 - 1
"""Shape 8 (4 p - 2) + n: exponents p of 1/2 to 2, tails n of 0 to 7."""

_TRIED_SHAPES = tuple(8 * p + n for p in (2, 4, 6) for n in (1, 2, 4, 6))
"""Exponents of 1, 3/2 and 2. With all shapes the bytes of trained weights are no fewer."""

_FIRST_SHAPE = 8 * 6 + 6
"""In which classes and offsets are found before the best shape is known."""

_MANTISSAS = (256, 304, 362, 431)
"""2**8 times the powers of the fourth root of 2."""

_OFFSETS = 15
_EVERY_OFFSET = range(-_OFFSETS, _OFFSETS + 1)
"""What is tried for a column: nearly four octaves to either side."""

_LANE = 16384
"""Symbols a lane. Many lanes cost bytes (3 each), few cost time (a step is ten calls of numpy)."""

_BLOCK = 1 << 18
"""How many values are worked on together: bounds the memory."""


@dataclass(frozen=True)
class Fit:
    """All that decides the frequencies, and the bits of the stream under them."""

    shape: int
    top: int  # the largest symbol
    rows: Ints  # the class of each
    columns: Ints  # the offset of each
    delta_class: int  # of the differences between the classes of neighbouring rows
    offset_class: int  # of the offsets
    bits: float

    @property
    def deltas(self) -> Ints:
        """The differences between the classes of neighbouring rows, the first of which is 0."""
        return _deltas(self.rows)


def estimate_bits(codes: NDArray[np.integer]) -> float:  # (rows, length)
    """The bits of the stream that `rans.encode` would return, by the tables that it would use."""
    return fit(codes).bits


def most_bytes(values: int) -> int:
    """An upper bound of the bytes of a stream of at least one value, whatever they are.

    A symbol takes 14 bits at most, and 29 raw bits beside it; rows and columns have one each, and
    are together at most one more than the values.
    """
    return 5 + 4 * lanes_of(1, values) + 6 * (2 * values + 1)


def lanes_of(rows: int, length: int) -> int:
    """How many lanes a stream has: one for each 16384 of its symbols, rows and columns included."""
    return 1 + (rows + 1) * (length + 1) // _LANE


def symbols_of(codes: NDArray[np.integer]) -> Ints:
    """The symbol of each magnitude: itself below 16, then four an octave."""
    found = np.abs(codes.astype(np.int64))
    shared = found >= DIRECT
    if shared.any():
        magnitudes = found[shared]
        octave = np.frexp(magnitudes.astype(np.float64))[1].astype(np.int64) - 1
        found[shared] = 4 * octave + (magnitudes >> (octave - 2)) - 4
    return found


def extra_bits(symbols: Ints) -> Ints:
    """How many raw bits each symbol needs beside it."""
    return np.where(symbols < DIRECT, 0, symbols // 4 - 2)


def least_of(symbols: Ints) -> Ints:
    """The least magnitude of each symbol."""
    return np.where(symbols < DIRECT, symbols, (4 + symbols % 4) << extra_bits(symbols))


def frequencies(shape: int, top: int, classes: Ints) -> Ints:  # (classes, top + 1)
    """Of the symbols 0 .. `top` of one sign, in each class; with both signs they add up to 2**14.

    The density is taken at eight places of a symbol. No frequency is less than 1.

    >>> frequencies(8 * 6 + 4, 3, np.array([24, 28]))  # scales 1/2 and 1, nearly Gaussian
    array([[13568,  1405,     2,     1],
           [ 8338,  3654,   356,    13]])
    """
    symbols = np.arange(top + 1)
    width = (1 << extra_bits(symbols))[:, None]
    places = np.abs(least_of(symbols)[:, None] - 0.5 + width * ((np.arange(8) + 0.5) / 8))
    scale = np.ldexp(np.array(_MANTISSAS)[classes % 4], classes // 4 - 15)[:, None, None]
    root = np.sqrt(np.sqrt(places / scale))
    power = root
    for _ in range(shape // 8 + 1):
        power = power * root
    density = 1 / (1 + power / (1 << shape % 8))
    for _ in range(shape % 8):
        density = density * density
    weights = (density * (2.0**24 * width / scale)).astype(np.int64).sum(2)
    total = 1 + weights[:, :1] + 2 * weights[:, 1:].sum(1, keepdims=True)
    found: Ints = 1 + weights * ((1 << ONE_BITS) - 2 * top - 1) // total
    found[:, 0] = (1 << ONE_BITS) - 2 * found[:, 1:].sum(1)
    return found


def blocks_of(values: int, multiple: int = 1) -> list[slice]:
    """The places 0 .. `values` in blocks of a multiple, whose arrays fit in little memory."""
    size = max(1, _BLOCK // multiple) * multiple
    return [slice(begin, min(begin + size, values)) for begin in range(0, values, size)]


def grid_classes(rows: Ints, columns: Ints, block: slice) -> Ints:
    """The classes of a block of a grid in row-major order."""
    row, column = np.divmod(np.arange(block.start, block.stop), len(columns))
    classes: Ints = np.clip(rows[row] + columns[column], 0, CLASSES - 1)
    return classes


def fit(codes: NDArray[np.integer]) -> Fit:  # (rows, length)
    """Find shape, classes and offsets; the latter only where they save more than they cost.

    Raises:
        ValueError: an integer is beyond int32.
    """
    if codes.size and not -(1 << 31) <= codes.min() <= codes.max() < 1 << 31:
        raise ValueError(f"cannot code the integers {codes.min()} to {codes.max()}: beyond int32")
    symbols = np.empty(codes.shape, np.uint8)
    for block in blocks_of(codes.size):
        symbols.reshape(-1)[block] = symbols_of(codes.reshape(-1)[block])
    columns = np.zeros(codes.shape[1], np.int64)
    rows = _fit_rows(symbols, _FIRST_SHAPE, columns)
    plain = _finish(symbols, rows, columns)
    if len(rows) < 2 or not plain.top:
        return plain
    penalty = np.zeros(len(_EVERY_OFFSET))
    for _ in range(2):  # a third round gains less than .1 %
        columns = _cheapest(symbols.T, _FIRST_SHAPE, rows, np.array(_EVERY_OFFSET), penalty)
        rows = _fit_rows(symbols, _FIRST_SHAPE, columns)
        coded, _ = _side(_FIRST_SHAPE, _OFFSETS, columns)
        penalty = _costs(_FIRST_SHAPE, _OFFSETS)[coded, np.abs(_EVERY_OFFSET)]
    return min(plain, _finish(symbols, rows, columns), key=lambda found: found.bits)


def _finish(symbols: Bytes, rows: Ints, columns: Ints) -> Fit:
    """Choose the shape, fit the classes of rows to it, and count all bits."""
    shape = _best_shape(_tally_classes(symbols, rows, columns))
    rows = _fit_rows(symbols, shape, columns)
    sides = (_deltas(rows), columns)
    top = max(
        int(symbols.max(initial=0)), *(int(symbols_of(side).max(initial=0)) for side in sides)
    )
    delta_class, delta_bits = _side(shape, top, sides[0])
    offset_class, offset_bits = _side(shape, top, sides[1])
    tally = _tally_classes(symbols, rows, columns)
    used = np.flatnonzero(tally.any(1))
    costs = _costs_in(shape, top, used)[:, : tally.shape[1]]
    bits = float((tally[used] * costs).sum()) + delta_bits + offset_bits
    # A header of 5 bytes; of the 32 bits of a lane's state 8, on average, are of its values.
    bits += 8 * 5 + 24 * lanes_of(*symbols.shape)
    return Fit(shape, top, rows, columns, delta_class, offset_class, bits)


def _deltas(classes: Ints) -> Ints:
    return np.diff(classes, prepend=classes[:1])


def _side(shape: int, top: int, values: Ints) -> tuple[int, float]:
    """The best class for classes or offsets themselves, and their bits."""
    totals = _costs(shape, top)[:, symbols_of(values)].sum(1)
    return int(totals.argmin()), float(totals.min())


@lru_cache(1024)
def _costs(shape: int, top: int) -> Floats:  # (classes, top + 1)
    """Bits of each symbol with its sign and raw bits, in all classes that `top` can need."""
    largest = int(least_of(np.array(top))) + 1
    return _costs_in(shape, top, np.arange(min(CLASSES, 4 * (7 + largest.bit_length()))))


def _costs_in(shape: int, top: int, classes: Ints) -> Floats:  # (classes, top + 1)
    held: Floats = np.log2(frequencies(shape, top, classes))
    return ONE_BITS - held + extra_bits(np.arange(top + 1))


def _fit_rows(symbols: Bytes, shape: int, columns: Ints) -> Ints:
    classes = np.arange(len(_costs(shape, int(symbols.max(initial=0)))))
    return _cheapest(symbols, shape, columns, classes)


def _cheapest(
    symbols: Bytes,  # (lines, places)
    shape: int,
    added: Ints,  # (places,): what is added to a line's choice there
    choices: Ints,
    penalty: Floats | float = 0.0,  # bits of each choice itself
) -> Ints:  # (lines,)
    """The choice for each line (row or column) that takes the fewest bits."""
    costs = _costs(shape, int(symbols.max(initial=0)))
    used, kinds = np.unique(added, return_inverse=True)
    sums = np.clip(used[:, None] + choices, 0, len(costs) - 1)
    table = costs[sums].transpose(0, 2, 1).reshape(-1, len(choices))
    found = np.zeros(len(symbols), np.int64)
    some = max(1, _BLOCK // max(len(table), len(added), 1))
    for begin in range(0, len(symbols), some):
        part = symbols[begin : begin + some]
        at = (np.arange(len(part))[:, None] * len(used) + kinds) * costs.shape[1] + part
        tally = np.bincount(at.ravel(), minlength=len(part) * len(table))
        bits = tally.reshape(len(part), -1).astype(np.float64) @ table + penalty
        found[begin : begin + some] = bits.argmin(1)
    return choices[found]


def _tally_classes(symbols: Bytes, rows: Ints, columns: Ints) -> Ints:  # (classes, largest + 1)
    """How often each symbol occurs in each class."""
    size = int(symbols.max(initial=0)) + 1
    tally = np.zeros(CLASSES * size, np.int64)
    for block in blocks_of(symbols.size):
        at = grid_classes(rows, columns, block) * size + symbols.reshape(-1)[block]
        tally += np.bincount(at, minlength=len(tally))
    return tally.reshape(CLASSES, size)


def _best_shape(tally: Ints) -> int:
    """The shape with the fewest bits, where all classes may move together by two octaves."""
    totals = []
    for shape in _TRIED_SHAPES:
        costs = _costs(shape, tally.shape[1] - 1)
        moved = np.arange(len(costs)) + np.arange(-8, 9)[:, None]
        every = costs[np.clip(moved, 0, len(costs) - 1)]
        totals.append((every * tally[: len(costs)]).sum((1, 2)).min())
    return _TRIED_SHAPES[int(np.argmin(totals))]
