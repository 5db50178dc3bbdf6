"""The plan: what will be done to every weight, with exact sizes. `planner` makes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf

from ttcompress.model.report import Flash, Totals
from ttcompress.model.weights import UNKNOWN, OtherTensor, Weight
from ttcompress.planning.formats import KEEP, Layout
from ttcompress.stores import Store
from ttcompress.stores.coded import Coded


@dataclass(frozen=True)
class PlannedWeight:
    """What will be done to one weight.

    A weight that is kept as it is has no `layout`, no `ranks` and no `store`. `in_budget` says
    whether the weight shares the budget; a rule that makes it dense in a given store takes it out.
    `expected_error` is the relative Frobenius error predicted from spectra and rounding noise, an
    upper bound for three or more cores; None without spectra. `estimated` are the bytes of a store
    whose size depends on the values, None where the shape tells them. `written` is the number of
    bytes that the stored weight really takes, None before it is stored. `why` says why a weight is
    kept. `tried` lists the layouts that were compared, `explicit` says whether the recipe fixed
    ranks. `flash` is the number of bytes in the flash of a device, for weights of the budget.
    """

    weight: Weight
    layout: Layout | None = None
    ranks: tuple[int, ...] = ()
    store: Store | None = None
    in_budget: bool = False
    expected_error: float | None = None
    why: str = ""
    notes: tuple[str, ...] = ()
    tried: tuple[Layout, ...] = ()
    explicit: bool = False
    estimated: int | None = None
    written: int | None = None
    flash: int = 0

    @property
    def format(self) -> str:
        """The format of the layout, or `keep`."""
        return self.layout.format if self.layout else KEEP

    @property
    def params(self) -> int:
        """How many values are stored."""
        return sum(self._parts)

    @property
    def bytes(self) -> int:
        """How many bytes are stored, scales included: as written, or as the store estimates."""
        for known in (self.written, self.estimated):
            if known is not None:
                return known
        if self.store is None:
            return self.weight.bytes
        return sum(map(self.store.estimate_bytes, self._parts))

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of a time step with the stored weight."""
        if self.layout is None:
            return dense_multiply_adds(self.weight)
        return self.layout.multiply_adds(self.ranks, lookup=self.weight.looked_up)

    @property
    def _parts(self) -> tuple[int, ...]:
        return self.layout.core_params(self.ranks) if self.layout else (self.weight.params,)


def dense_multiply_adds(weight: Weight) -> int:
    """Multiply-adds of one product with the matrix; 0 if its rows are only looked up."""
    return 0 if weight.looked_up else weight.params


@dataclass(frozen=True)
class Plan:
    """All weights of a model in their order, and the other tensors, which are kept.

    `from_spectra` is True if the weights' singular values were used for the choice, False if shapes
    and the recipe were enough. `notes` are remarks for the user. `byte_limit` is the most that the
    weights of the budget may take together. `model_flash` are the bytes of the whole model in a
    device's flash, None if they were not measured.
    """

    weights: tuple[PlannedWeight, ...]
    others: tuple[OtherTensor, ...]
    from_spectra: bool
    notes: tuple[str, ...] = ()
    byte_limit: float = inf
    model_flash: int | None = None

    def finer(self, times: float) -> Plan:
        """The same plan with every step of the budget's coded weights that many times smaller."""
        weights = tuple(
            replace(p, store=p.store.at(p.store.step / times))
            if p.in_budget and isinstance(p.store, Coded) and p.store.step is not None
            else p
            for p in self.weights
        )
        return replace(self, weights=weights)

    def as_written(self, sizes: Mapping[str, int]) -> Plan:
        """The same plan with the bytes that each weight, by name, really takes."""
        weights = tuple(replace(p, written=sizes.get(p.weight.name)) for p in self.weights)
        return replace(self, weights=weights)

    @property
    def changed(self) -> tuple[PlannedWeight, ...]:
        """The weights whose numbers will change: mps, mpo, dense."""
        return tuple(planned for planned in self.weights if planned.layout is not None)

    @property
    def flash(self) -> Flash | None:
        """What is taken in the flash of a device; None without one."""
        weights = sum(planned.flash for planned in self.weights)
        return Flash(weights, self.model_flash) if weights else None

    @property
    def weights_totals(self) -> Totals:
        """Totals of the weights that share the budget."""
        return _totals(tuple(planned for planned in self.weights if planned.in_budget))

    @property
    def model_totals(self) -> Totals:
        """Totals of all tensors."""
        return _totals(self.weights, self.others)


def _totals(weights: tuple[PlannedWeight, ...], others: tuple[OtherTensor, ...] = ()) -> Totals:
    other_params = sum(other.params for other in others)
    other_bytes = sum(other.bytes for other in others)
    used = [p for p in weights if p.layout is not None or p.weight.role != UNKNOWN]
    return Totals(
        params_before=sum(p.weight.params for p in weights) + other_params,
        params_after=sum(p.params for p in weights) + other_params,
        bytes_before=sum(p.weight.bytes for p in weights) + other_bytes,
        bytes_after=sum(p.bytes for p in weights) + other_bytes,
        multiply_adds_before=sum(dense_multiply_adds(p.weight) for p in used),
        multiply_adds_after=sum(p.multiply_adds for p in used),
    )
