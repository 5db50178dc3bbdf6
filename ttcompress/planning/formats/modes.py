"""Factorises the sides of a matrix; formats make their automatic modes from the factors."""

from __future__ import annotations

from math import isqrt

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
    """`count` ascending factors above 1, as even as possible; None if the number has too few.

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


def split_gates(rows: int, gates: int) -> Modes | None:
    """(gates, rows of each); None if there is only one gate, or one row in each."""
    return (gates, rows // gates) if gates > 1 and rows > gates else None
