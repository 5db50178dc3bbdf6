"""Formats numbers for tables, remarks and the page."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan

from ttcompress.model.report import times_fewer

_UNITS = ((1_000_000_000_000, "TB"), (1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB"))


def cell_text(value: object) -> str:
    """A cell of a table: text unchanged, integers with commas, floats to four digits.

    >>> cell_text("mps"), cell_text(1048576), cell_text(1.23456), cell_text(None)
    ('mps', '1,048,576', '1.235', '-')
    """
    match value:
        case None:
            return "-"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:.4g}"
        case _:
            return str(value)


def error_text(error: float) -> str:
    """Four decimals, or an exponent if those would all be zero; NaN is an unknown error.

    >>> error_text(0.01234), error_text(3.2e-7), error_text(0.0), error_text(float("nan"))
    ('0.0123', '3.2e-07', '0.0000', '-')
    """
    if isnan(error):
        return "-"
    return f"{error:.1e}" if 0 < error < 1e-4 else f"{error:.4f}"


def limit_figure(value: float) -> str:
    """Four digits below 1000, otherwise a whole number with commas, as for sizes."""
    return f"{value:.4g}" if isinstance(value, float) and abs(value) < 1000 else f"{value:,.0f}"


def times_text(before: int, after: int) -> str:
    """How many times smaller or fewer.

    >>> times_text(6000, 4800)
    '1.25x'
    """
    return f"{times_fewer(before, after):.2f}x"


def bytes_text(count: int) -> str:
    """Three digits and the unit.

    >>> bytes_text(490_000), bytes_text(3_554_929), bytes_text(812)
    ('490 kB', '3.55 MB', '812 bytes')
    """
    for unit, name in _UNITS:
        if count >= 0.9995 * unit:
            return f"{count / unit:.3g} {name}"
    return f"{count} bytes"


def modes_text(row_modes: Sequence[int] | None, column_modes: Sequence[int] | None) -> str:
    """Row modes, then column modes.

    >>> modes_text((4, 16, 16), (8, 32)), modes_text((), ())
    ('4.16.16 x 8.32', '-')
    """
    if not row_modes or not column_modes:
        return "-"
    return f"{'.'.join(map(str, row_modes))} x {'.'.join(map(str, column_modes))}"
