"""The number types that cores and dense weights are stored in, by name.

To add a store, write a subclass of `ttcompress.stores.store.Store` in a new file, and add a line to
`STORES`. Importing this package does not import torch.
"""

from ttcompress.stores.coded import CODED
from ttcompress.stores.floats import FLOATS
from ttcompress.stores.integers import INTEGERS
from ttcompress.stores.store import Costs, Encoded, Store

AUTO = "auto"
"""The word in a recipe that lets the planner choose the store."""

STORES: dict[str, Store] = {
    store.name: store
    for store in (
        *INTEGERS,
        *FLOATS,
        CODED,
    )
}


def auto_stores() -> tuple[Store, ...]:
    """The stores that `auto` chooses from: fewest bytes first, the finest last."""
    offered = (store for store in STORES.values() if store.in_auto)
    return tuple(sorted(offered, key=lambda store: store.bytes_per_value))


__all__ = ["AUTO", "STORES", "Costs", "Encoded", "Store", "auto_stores"]
