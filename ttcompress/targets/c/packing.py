"""Turns a description into the arrays and tables of the C code: `pack` is the entry.

Matrices go into strips, in the order in which the kernel reads them; `kernel.c` describes it. In
8 bits each row has a scale, and the columns of an `up` have one too, which costs nothing: it is
multiplied into the rows of its `down`. In 4 bits an `up` only has those of columns, because one
scale for a long row loses too much; tables and heads stay in 8 bits.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ttcompress.planning.flash import PADDING, ROWS, UNITS, Bits
from ttcompress.targets.c.description import Array, Description, Direction, Map

CLIPS = np.linspace(0.55, 1.0, 10)
"""Fractions of the largest value that 4 bits are tried with."""


@dataclass(frozen=True)
class MatrixEntry:
    """A matrix in the tables: the names of its arrays, and its sizes."""

    weights: str
    scale: str | None
    bias: str | None
    column: str | None
    rows: int
    columns: int
    strip: int
    bits: Bits


@dataclass(frozen=True)
class MapEntry:
    """A map in the tables."""

    up: MatrixEntry
    down: MatrixEntry | None


@dataclass(frozen=True)
class LayerEntry:
    """A direction in the tables, and where its state is."""

    direction: Direction
    input: MapEntry
    recurrent: MapEntry
    projection: MapEntry | None
    h: int
    c: int


@dataclass(frozen=True)
class Memory:
    """A piece of a state as torch has it: `count` values from `place` on."""

    cell: bool
    place: int
    count: int


@dataclass(frozen=True, eq=False)
class Packed:
    """A model, ready to be written.

    Attributes:
        description: what it was packed from.
        bits: of most matrices.
        arrays: bytes (uint8) or floats (float32) by name, padding included.
        holds: how many values there are in each type.
        errors: what rounding lost of each weight, relative to its Frobenius norm; none of floats.
        layers, table, head: the tables.
        memory: the pieces of a state in torch's order.
        hidden, cell: sizes of these arrays of a state.
        vector: the longest vector that is multiplied.
        middle: the longest between two factors.
    """

    description: Description
    bits: Bits
    arrays: dict[str, NDArray[np.generic]] = field(default_factory=dict)
    holds: dict[str, int] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    layers: tuple[LayerEntry, ...] = ()
    table: MatrixEntry | None = None
    head: MapEntry | None = None
    memory: tuple[Memory, ...] = ()
    hidden: int = 0
    cell: int = 0
    vector: int = 0
    middle: int = 0

    @property
    def flash(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for array in self.arrays.values())


def pack(description: Description, bits: Bits) -> Packed:
    """Round all matrices, and bring them into the kernel's order.

    Args:
        description: of the model.
        bits: 32 for floats.
    """
    return _Packer(description, bits).pack()


class _Packer:
    """Collects arrays under names of its own: nothing of a checkpoint's names gets into C."""

    def __init__(self, description: Description, bits: Bits) -> None:
        self._of = description
        self._bits = bits
        self._arrays = dict[str, NDArray[np.generic]]()
        self._holds = dict[str, int]()
        self._errors = dict[str, float]()
        self._widest, self._middle = 16, 16

    def pack(self) -> Packed:
        found = self._of
        fine: Bits = 32 if self._bits == 32 else 8
        table, scale = None, None
        if found.table is not None and not found.tied:
            rows = found.table.up
            first = found.stacks[0][0]
            alone = not any(one.reverse for one in found.stacks[0][:2])
            if self._bits != 32 and first.input.down is None and alone:
                # The table gives what `up` multiplies, so it takes the scales of its columns.
                scale = _column_scales(first.input.up, self._bits)
                rows = rows * scale
            table, rounded = self._matrix("table", rows, fine)
            self._note_error(found.table.name, rows, rounded)
        layers, memory, h, c = list[LayerEntry](), list[Memory](), 0, 0
        for s, stack in enumerate(found.stacks):
            states, cells = [], []
            for k, one in enumerate(stack):
                name = f"s{s}_l{k}" if len(found.stacks) > 1 else f"l{k}"
                given = scale if not layers else None
                layers.append(self._layer(name, one, h, c, given))
                states.append(Memory(False, h, one.outputs))
                h += sixteen(one.outputs)
                if one.cell == "lstm":
                    cells.append(Memory(True, c, one.hidden))
                    c += sixteen(one.hidden)
            memory += [*states, *cells]
        head = None
        if found.head is not None:
            head = self._map("head", found.head, fine, found.head_bias, plain=found.tied)
            if found.tied:
                assert found.table is not None
                table = head.up
        self._widest = max(self._widest, found.inputs, found.features)
        return Packed(
            found,
            self._bits,
            self._arrays,
            dict(sorted(self._holds.items(), key=lambda item: -item[1])),
            self._errors,
            tuple(layers),
            table,
            head,
            tuple(memory),
            hidden=h,
            cell=c,
            vector=sixteen(self._widest),
            middle=sixteen(self._middle),
        )

    def _layer(self, name: str, one: Direction, h: int, c: int, scale: Array | None) -> LayerEntry:
        bits, gates = self._bits, one.gates
        return LayerEntry(
            one,
            self._map(f"{name}_input", one.input, bits, one.input_bias, gates, scale),
            self._map(f"{name}_recurrent", one.recurrent, bits, one.hidden_bias, gates),
            None
            if one.projection is None
            else self._map(f"{name}_projection", one.projection, bits),
            h,
            c,
        )

    def _map(
        self,
        name: str,
        given: Map,
        bits: Bits,
        bias: Array | None = None,
        gates: int = 1,
        scale: Array | None = None,
        *,
        plain: bool = False,
    ) -> MapEntry:
        """The entry of a map, and its arrays.

        Args:
            name: of the arrays.
            given: the map.
            bits: to round to.
            bias: of its rows.
            gates: blocks of rows.
            scale: of the columns of `up`, if what it multiplies has been scaled by it already.
            plain: the columns of `up` get no scales, since its rows are looked up too.
        """
        up, down = given.up, given.down
        if down is not None and bits != 32 and not plain:
            scale = _column_scales(up, bits)
            down = down * scale[:, None]
        if scale is not None:
            up = up / scale
        known = scale is not None
        if down is None:
            entry, rounded = self._matrix(name, up, bits, bias, gates, known=known)
            self._note_error(given.name, up, rounded)
            return MapEntry(entry, None)
        self._middle = max(self._middle, len(down))
        first, rounded = self._matrix(f"{name}_up", up, bits, bias, gates, known=known)
        second, below = self._matrix(f"{name}_down", down, bits)
        self._note_error(given.name, up @ down, rounded @ below)
        return MapEntry(first, second)

    def _note_error(self, name: str, values: Array, rounded: Array) -> None:
        if self._bits != 32:
            norm = float(np.linalg.norm(values))
            lost = float(np.linalg.norm(values - rounded))
            self._errors[name] = lost / norm if norm else lost

    def _matrix(
        self,
        name: str,
        values: Array,
        bits: Bits,
        bias: Array | None = None,
        gates: int = 1,
        *,
        known: bool = False,  # whether the columns have been divided by their scales
    ) -> tuple[MatrixEntry, Array]:
        """The entry of a matrix, its arrays, and its values as the kernel sees them."""
        rows, columns = values.shape
        self._widest = max(self._widest, columns)
        strip = gates * UNITS if gates > 1 else ROWS
        order = _order(rows, gates)
        values = values[order]
        scale = column = None
        if bits == 32:
            levels = values
        elif bits == 8:
            levels, scale = _round_8(values)
        elif known:
            levels = _levels_4(values)
        elif gates > 1:
            column = _column_scales(values, 4)
            levels = _levels_4(values / column)
        else:
            scale = _column_scales(values.T, 4)
            levels = _levels_4(values / scale[:, None])
        if bits == 4:  # no level is zero, so what must stay zero has a scale of zero
            scale = _clear(scale, (values == 0).all(axis=1))
            column = _clear(column, (values == 0).all(axis=0))
        self._arrays[name] = _padded(
            np.concatenate([_ordered(levels[k : k + strip], bits) for k in range(0, rows, strip)])
        )
        self._count({32: "float", 8: "int8", 4: "int4"}[bits], values.size)
        extras = {"scale": scale, "column": column}
        extras["bias"] = None if bias is None else bias[order]
        names = {key: self._floats(f"{name}_{key}", one) for key, one in extras.items()}
        entry = MatrixEntry(
            name, names["scale"], names["bias"], names["column"], rows, columns, strip, bits
        )
        rounded = np.empty_like(values)
        rounded[order] = levels * (1.0 if scale is None else scale[:, None])
        return entry, rounded if column is None else rounded * column

    def _floats(self, name: str, values: Array | None) -> str | None:
        if values is None:
            return None
        self._count("float", values.size)
        self._arrays[name] = _padded(values.astype("<f4"))
        return name

    def _count(self, type: str, values: int) -> None:
        self._holds[type] = self._holds.get(type, 0) + values


def sixteen(count: int) -> int:
    """The next multiple of 16: vectors may be read to there."""
    return -(-count // 16) * 16


def _order(rows: int, gates: int) -> NDArray[np.intp]:
    """In each strip the units of one gate after those of another; without gates as they are."""
    units: NDArray[np.intp] = np.arange(rows).reshape(gates, -1)
    strips = [units]
    if gates > 1:
        strips = np.split(units, range(UNITS, units.shape[1], UNITS), axis=1)
    return np.concatenate([strip.reshape(-1) for strip in strips])


def _padded(values: NDArray[np.generic]) -> NDArray[np.generic]:
    return np.append(values, np.zeros(PADDING // values.itemsize, values.dtype))


def _ordered(levels: Array, bits: Bits) -> NDArray[np.generic]:
    """One strip as the kernel reads it."""
    rows, columns = levels.shape
    wide = np.pad(levels, ((0, 0), (0, -columns % 8)))
    if bits == 32:
        return np.ascontiguousarray(wide.T, dtype="<f4").reshape(-1)
    if bits == 8:
        codes = (wide + 64).astype(np.uint8).reshape(rows, -1, 4)
    else:
        nibbles = ((wide + 15) / 2).astype(np.uint8).reshape(rows, -1, 2, 4)
        codes = nibbles[:, :, 0] + nibbles[:, :, 1] * np.uint8(16)
    return np.ascontiguousarray(codes.transpose(1, 0, 2)).reshape(-1)


def _round_8(values: Array) -> tuple[Array, Array]:
    """Levels of -63 to 63, and a scale for each row."""
    scale = _positive(np.abs(values).max(axis=1) / 63)
    return np.rint(values / scale[:, None]), scale


def _levels_4(values: Array) -> Array:
    """The nearest odd levels of -15 to 15."""
    levels: Array = np.clip(2 * np.floor(values / 2) + 1, -15, 15)
    return levels


def _column_scales(matrix: Array, bits: Bits) -> Array:
    """A scale for each column: its largest value in 8 bits, the least error in 4."""
    if bits == 8:
        return _positive(np.abs(matrix).max(axis=0))
    peaks = _positive(np.abs(matrix).max(axis=0) / 15)
    best, least = peaks, np.full(peaks.shape, np.inf)
    for clip in CLIPS:
        levels = _levels_4(matrix / (clip * peaks))
        scale = _positive((matrix * levels).sum(axis=0) / (levels * levels).sum(axis=0))
        error = ((matrix - levels * scale) ** 2).sum(axis=0)
        best, least = np.where(error < least, scale, best), np.minimum(error, least)
    return best


def _clear(scale: Array | None, zero: NDArray[np.bool_]) -> Array | None:
    """The scales with zeros where a row or column is zero; None if all of them are 1."""
    if scale is None and not zero.any():
        return None
    return np.where(zero, 0.0, 1.0 if scale is None else scale)


def _positive(scale: Array) -> Array:
    found: Array = np.where(scale > 0, scale, 1.0)
    return found
