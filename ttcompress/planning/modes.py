"""Automatic modes: a shape enters, a few layouts worth trying leave.

Which of them is taken is decided by error at the budget, not by how even the modes look: on trained
weights few long modes often beat many short ones, and the two-core MPS, which is the truncated SVD,
is often the best.
"""

from __future__ import annotations

from math import isqrt, prod

from ttcompress.planning.formats import Layout, TrainFormat

Modes = tuple[int, ...]


def divisors(number: int) -> tuple[int, ...]:
    """All divisors in ascending order.

    >>> divisors(12)
    (1, 2, 3, 4, 6, 12)
    """
    small = [d for d in range(1, isqrt(number) + 1) if number % d == 0]
    large = [number // d for d in reversed(small) if d * d != number]
    return (*small, *large)


def balanced(number: int, count: int) -> Modes | None:
    """`count` factors above 1, as even as can be, ascending; None where the number has too few.

    >>> balanced(1024, 2), balanced(129, 2), balanced(83, 2)
    ((32, 32), (3, 43), None)
    """
    if count == 1:
        return (number,) if number > 1 else None
    best: Modes | None = None
    for first in divisors(number):
        if first**count > number:
            break
        rest = balanced(number // first, count - 1) if first > 1 else None
        if rest and rest[0] >= first and (best is None or rest[-1] < best[-1]):
            best = (first, *rest)
    return best


def layouts(
    shape: tuple[int, int],
    train_format: TrainFormat,
    gates: int = 1,
    row_modes: Modes | None = None,
    column_modes: Modes | None = None,
) -> tuple[Layout, ...]:
    """The layouts to try for a matrix of this shape; given modes are kept as they are.

    >>> [layout.row_modes for layout in layouts((1024, 83), "mps", gates=4)]
    [(1024,), (4, 256), (32, 32)]
    """
    if row_modes and column_modes:
        return (Layout(train_format, row_modes, column_modes),)
    pairs = _mps_modes(shape, gates) if train_format == "mps" else _mpo_modes(shape, gates)
    if row_modes:
        pairs = [(row_modes, _beside(row_modes, columns, train_format)) for _, columns in pairs]
    if column_modes:
        pairs = [(_beside(column_modes, rows, train_format), column_modes) for rows, _ in pairs]
    return tuple(dict.fromkeys(Layout(train_format, rows, columns) for rows, columns in pairs))


def _mps_modes(shape: tuple[int, int], gates: int) -> list[tuple[Modes, Modes]]:
    """Both sides whole; the gates split off; rows halved; both sides halved."""
    rows, columns = shape
    sides = [(rows,), _gate_split(rows, gates), balanced(rows, 2)]
    pairs: list[tuple[Modes, Modes]] = [(side, (columns,)) for side in sides if side]
    halves = balanced(rows, 2), balanced(columns, 2)
    if halves[0] and halves[1]:
        pairs.append((halves[0], halves[1]))
    return pairs


def _mpo_modes(shape: tuple[int, int], gates: int) -> list[tuple[Modes, Modes]]:
    """Two and three balanced pairs; the gates with a small column mode.

    A mode of 1 appears only where a side is prime (or 1): (rows, 1) x (1, columns) is the SVD
    again, and would make every comparison with MPS empty.
    """
    rows, columns = shape
    pairs: list[tuple[Modes, Modes]] = []
    for count in (2, 3):
        row_side, column_side = balanced(rows, count), balanced(columns, count)
        if row_side and column_side:
            pairs.append((row_side, column_side[::-1]))
    split = _gate_split(rows, gates)
    small = [d for d in divisors(columns) if 1 < d <= 2 * gates and d < columns]
    if split and small:
        pairs.append((split, (small[-1], columns // small[-1])))
    return pairs or [(balanced(rows, 2) or (rows, 1), balanced(columns, 2) or (1, columns))]


def _gate_split(rows: int, gates: int) -> Modes | None:
    return (gates, rows // gates) if gates > 1 and rows > gates else None


def _beside(given: Modes, modes: Modes, train_format: TrainFormat) -> Modes:
    """The automatic side of a layout, factored anew where an MPO needs as many modes as given.

    Where the side has too few factors for that, modes of 1 fill up.
    """
    count = len(given)
    if train_format == "mps" or len(modes) == count:
        return modes
    return balanced(prod(modes), count) or (*modes, *[1] * (count - len(modes)))
