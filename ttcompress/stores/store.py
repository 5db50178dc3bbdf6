"""The number types that cores and dense weights are kept in: bits, groups, bytes, rounding noise.

Facts only, no tensor and no torch: the planner counts bytes with them and
`ttcompress.trains.rounding` obeys them.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

AUTO = "auto"
"""The store that leaves the choice of bits to the planner."""

SCALE_BYTES = 2  # one float16 for each group
FACTOR_BYTES = 4  # one float32 for each core


@dataclass(frozen=True)
class Store:
    """A number type.

    `noise` is the expected squared error of rounding divided by the squared norm, for normally
    distributed values (which the entries of singular vectors nearly are). Measured once with
    `ttcompress.trains.rounding` itself and held to it by a test; the errors in a report are never
    taken from here.
    """

    name: str
    bits: int
    noise: float
    group: int | None = None  # values that share a scale; None for a floating-point type

    @property
    def is_integer(self) -> bool:
        """Whether values are kept as levels of a group's scale."""
        return self.group is not None

    @property
    def bits_with_scales(self) -> float:
        """Bits for each value when there are many of them."""
        return self.bits + (8 * SCALE_BYTES / self.group if self.group else 0)

    def bytes(self, values: int) -> int:
        """Exact bytes of one core (or dense weight) of so many values.

        >>> STORES["int4"].bytes(64), STORES["float16"].bytes(64)
        (38, 128)
        """
        if self.group is None:
            return values * self.bits // 8
        planes = self.bits * ceil(values / 8)
        return planes + SCALE_BYTES * ceil(values / self.group) + FACTOR_BYTES


STORES: dict[str, Store] = {
    store.name: store
    for store in (
        Store("int2", 2, 1.07e-1, group=32),
        Store("int3", 3, 2.92e-2, group=32),
        Store("int4", 4, 8.68e-3, group=64),
        Store("int5", 5, 2.18e-3, group=64),
        Store("int6", 6, 5.45e-4, group=64),
        Store("int7", 7, 1.37e-4, group=64),
        Store("int8", 8, 3.42e-5, group=64),
        Store("bfloat16", 16, 2.8e-6),
        Store("float16", 16, 4.3e-8),
        Store("float32", 32, 1e-15),
    )
}

AUTO_STORES: tuple[Store, ...] = tuple(
    STORES[name]
    for name in STORES
    if name != "bfloat16"  # float16 is as small and rounds finer
)
