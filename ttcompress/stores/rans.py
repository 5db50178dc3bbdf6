"""Codes integers in few bits by interleaved static rANS, with frequencies that are never stored.

    stream = encode(codes)                     # uint8; codes are integers of (rows, length)
    codes = decode(stream, rows, length)       # int32, or a ValueError if it is damaged

A row and a column should each hold values of about one scale: see `rates`, which decides the
frequencies. FORMAT.md, "Coded integers", specifies the stream.

Several lanes share the words of a stream, so that numpy can decode a symbol of each at once.
Sources: Duda, "Asymmetric numeral systems" (2013); Giesen, "Interleaved entropy coders" (2014).
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

from ttcompress.stores.rates import (
    CLASSES,
    DIRECT,
    MOST_SHAPE,
    MOST_SYMBOL,
    ONE_BITS,
    Fit,
    blocks_of,
    extra_bits,
    fit,
    frequencies,
    grid_classes,
    lanes_of,
    least_of,
    symbols_of,
)
from ttcompress.system.late import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Bytes = NDArray[np.uint8]

_LOW = 1 << 16
"""A lane's state is at least this, where it starts and ends, and less than 2**32."""

_HEADER, _STATE = 5, 4
"""Bytes of what precedes the states, and of a lane's state."""


def encode(codes: NDArray[np.integer], fitted: Fit | None = None) -> Bytes:  # (rows, length)
    """Code integers; the same integers give the same bytes.

    Args:
        codes: the integers.
        fitted: what `rates.fit` returned for them, if it was called before.

    Raises:
        ValueError: an integer is beyond int32.
    """
    fitted = fit(codes) if fitted is None else fitted
    tables = fitted.shape, fitted.top
    side = np.zeros(len(fitted.rows), np.int64), np.zeros(len(fitted.columns), np.int64)
    parts = (
        (fitted.deltas, np.array([fitted.delta_class]), side[0]),
        (fitted.columns, np.array([fitted.offset_class]), side[1]),
        (codes.reshape(-1), fitted.rows, fitted.columns),
    )
    state = np.full(lanes_of(*codes.shape), _LOW)
    words = [np.zeros(0, np.uint16)]
    for values, rows, columns in reversed(parts):
        _push(state, words, values, tables, rows, columns)
    first = int(fitted.rows[0]) if len(fitted.rows) else 0
    header = [*tables, first, fitted.delta_class, fitted.offset_class]
    pieces = (
        np.array(header, np.uint8),
        state.astype("<u4").view(np.uint8),
        np.concatenate(words[::-1]).astype("<u2").view(np.uint8),
        _pack_extras(np.concatenate([_sharing(values) for values, _, _ in parts])),
    )
    return np.concatenate(pieces)


def decode(stream: Bytes, rows: int, length: int) -> NDArray[np.int32]:  # (rows, length)
    """Decode what `encode` returned for integers of this shape.

    Time and memory are bounded by the stream: one of n bytes holds less than 4096 n values.

    Raises:
        ValueError: the stream is damaged, or not one of this shape.
    """
    lanes = lanes_of(rows, length)
    if len(stream) < _HEADER + lanes * _STATE:
        raise ValueError(f"{len(stream)} bytes are too few for {rows} x {length} codes")
    shape, top, first, delta_class, offset_class = stream[:_HEADER].tolist()
    if shape > MOST_SHAPE or top > MOST_SYMBOL or max(first, delta_class, offset_class) >= CLASSES:
        raise ValueError(f"coded integers cannot begin with {stream[:_HEADER].tolist()}")
    source = _Source(stream, lanes, (shape, top))
    deltas = source.take(np.array([delta_class]), np.zeros(rows, np.int64))
    offsets = source.take(np.array([offset_class]), np.zeros(length, np.int64)).astype(np.int64)
    classes = first + np.cumsum(deltas, dtype=np.int64)
    if not ((classes >= 0) & (classes < CLASSES)).all() or (np.abs(offsets) >= CLASSES).any():
        raise ValueError("coded integers are damaged: a class is out of range")
    codes = source.take(classes, offsets)
    source.close()
    return codes.reshape(rows, length)


def _intervals(tables: tuple[int, int], rows: Ints, columns: Ints) -> tuple[Ints, Ints, Ints]:
    """The classes of a grid without repeats; frequency and start of each signed symbol in these."""
    sums = np.unique(rows)[:, None] + np.unique(columns)
    used = np.unique(np.clip(sums, 0, CLASSES - 1))
    half = frequencies(*tables, used)
    whole = np.concatenate([half[:, :0:-1], half], axis=1)
    return used, whole, np.cumsum(whole, axis=1) - whole


def _push(
    state: Ints,
    words: list[NDArray[np.uint16]],
    values: NDArray[np.integer],
    tables: tuple[int, int],
    rows: Ints,
    columns: Ints,
) -> None:
    """Code the values of a grid from the last to the first: decoding runs the other way."""
    lanes = len(state)
    used, frequency, start = _intervals(tables, rows, columns)
    quotient, shift = np.empty_like(state), np.empty_like(state)
    for block in reversed(blocks_of(len(values), lanes)):
        part = values[block]
        symbols = np.sign(part) * symbols_of(part) + tables[1]
        kinds = np.searchsorted(used, grid_classes(rows, columns, block))
        at = kinds * frequency.shape[1] + symbols
        # All that does not depend on the states is made for the whole block, a row for each step:
        # with few lanes, calls are what takes time. The whole range leaves a state as it is.
        shape = (-1, lanes)
        f = _padded(frequency.ravel()[at], lanes, 1 << ONE_BITS).reshape(shape)
        c = _padded(start.ravel()[at], lanes, 0).reshape(shape)
        limit, rest = f << (32 - ONE_BITS), (1 << ONE_BITS) - f
        before, full = np.empty_like(f), np.empty(f.shape, bool)
        steps = (before, full, limit, f, rest, c)
        for was, over, most, width, left, begin in zip(*(a[::-1] for a in steps), strict=True):
            was[:] = state
            np.greater_equal(state, most, out=over)
            np.multiply(over, 16, out=shift)
            np.right_shift(state, shift, out=state)
            np.floor_divide(state, width, out=quotient)
            np.multiply(quotient, left, out=quotient)
            np.add(quotient, begin, out=quotient)
            np.add(state, quotient, out=state)  # (x // f) 2**14 + x mod f + c
        words.append(before[full].astype(np.uint16))


def _padded(values: Ints, multiple: int, fill: int) -> Ints:
    """Values up to a length that is a multiple."""
    return np.concatenate([values, np.full(-len(values) % multiple, fill)])


class _Source:
    """A stream being read: a state for each lane, words from the front, raw bits from the end."""

    def __init__(self, stream: Bytes, lanes: int, tables: tuple[int, int]) -> None:
        begin = _HEADER + lanes * _STATE
        end = len(stream) - (len(stream) - begin) % 2
        self._stream, self._tables = stream, tables
        self._state = np.frombuffer(stream[_HEADER:begin].tobytes(), "<u4").astype(np.int64)
        self._words = np.frombuffer(stream[begin:end].tobytes(), "<u2")
        self._read = self._raw = 0  # words and raw bits so far

    def take(self, rows: Ints, columns: Ints) -> NDArray[np.int32]:
        """Decode the values of a grid with these classes and offsets, in row-major order."""
        used, frequency, start = _intervals(self._tables, rows, columns)
        counts, top = frequency.ravel(), self._tables[1]
        # For each slot of each class: its symbol, the width of this, and the place within it.
        symbols = np.tile(np.arange(-top, top + 1), len(used)).repeat(counts).astype(np.int16)
        width = counts.repeat(counts)
        place = np.tile(np.arange(1 << ONE_BITS), len(used)) - start.ravel().repeat(counts)
        found = np.empty(len(rows) * len(columns), np.int32)
        for block in blocks_of(len(found), len(self._state)):
            slots = np.searchsorted(used, grid_classes(rows, columns, block)) << ONE_BITS
            self._walk(slots, width, place)
            found[block] = symbols[slots]
        self._add_extras(found)
        return found

    def _walk(self, slots: Ints, width: Ints, place: Ints) -> None:
        """Add the decoded slot to the begin of each class's table, and advance the lanes."""
        words, lanes = self._words, len(self._state)
        for step in range(0, len(slots), lanes):
            slot = slots[step : step + lanes]
            x = self._state[: len(slot)]
            slot += x & ((1 << ONE_BITS) - 1)
            x >>= ONE_BITS
            x *= width[slot]
            x += place[slot]
            low = (x < _LOW).nonzero()[0]
            if low.size:
                new = words[self._read : self._read + low.size]
                if new.size < low.size:
                    raise ValueError("coded integers end before the last of them")
                x[low] = (x[low] << 16) + new
                self._read += low.size

    def _add_extras(self, found: NDArray[np.int32]) -> None:
        """Replace signed symbols that share by the values that their raw bits say."""
        at = (np.abs(found) >= DIRECT).nonzero()[0]
        symbols = np.abs(found[at].astype(np.int64))
        count = extra_bits(symbols)
        where = self._raw + np.cumsum(count) - count
        self._raw += int(count.sum())
        if self._raw > 8 * len(self._stream):
            raise ValueError("coded integers end before the last of them")
        bits = np.unpackbits(self._stream[::-1][: ceil(self._raw / 8)], bitorder="little")
        magnitudes = least_of(symbols)
        for bit in range(int(count.max(initial=0))):
            more = count > bit
            magnitudes[more] += bits[where[more] + bit].astype(np.int64) << bit
        signed = np.sign(found[at]) * magnitudes
        if (signed != signed.astype(np.int32)).any():
            raise ValueError("a coded integer is beyond int32")
        found[at] = signed

    def close(self) -> None:
        """Refuse what was not read to its end, or lanes that are not where they started."""
        raw, padding = ceil(self._raw / 8), -self._raw % 8
        used = _HEADER + _STATE * len(self._state) + 2 * self._read + raw
        if used != len(self._stream):
            raise ValueError(f"coded integers end after {used} bytes of {len(self._stream)}")
        padded = bool(padding) and bool(self._stream[-raw] >> (8 - padding))
        if padded or (self._state != _LOW).any():
            raise ValueError("coded integers are damaged: they do not end where they started")


def _pack_extras(magnitudes: Ints) -> Bytes:
    """The raw bits of magnitudes that share symbols, to be read from the end of the stream."""
    symbols = symbols_of(magnitudes)
    count, low = extra_bits(symbols), magnitudes - least_of(symbols)
    bits = np.zeros(int(count.sum()), np.uint8)
    where = np.cumsum(count) - count
    for bit in range(int(count.max(initial=0))):
        more = count > bit
        bits[where[more] + bit] = low[more] >> bit & 1
    return np.packbits(bits, bitorder="little")[::-1]


def _sharing(values: NDArray[np.integer]) -> Ints:
    """The magnitudes of values that share their symbol with others."""
    shared = (values >= DIRECT) | (values <= -DIRECT)
    return np.abs(values[shared].astype(np.int64))
