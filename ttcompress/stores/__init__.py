"""The number types that cores and dense weights are kept in, by name.

A new store is a subclass of `ttcompress.stores.store.Store` in a file of its own, and a line in
`STORES`. Importing this package does not import torch.
"""

from ttcompress.stores.floats import FLOATS
from ttcompress.stores.integers import INTEGERS
from ttcompress.stores.store import Encoded, Store

AUTO = "auto"
"""What a recipe writes where the planner is to choose the store."""

STORES: dict[str, Store] = {
    store.name: store
    for store in (
        *INTEGERS,
        *FLOATS,
    )
}


def auto_stores() -> tuple[Store, ...]:
    """The stores that `auto` chooses from: fewest bytes first, the finest last."""
    offered = (store for store in STORES.values() if store.in_auto)
    return tuple(sorted(offered, key=lambda store: store.bytes_per_value))


__all__ = ["AUTO", "STORES", "Encoded", "Store", "auto_stores"]
