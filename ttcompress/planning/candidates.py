"""Errors and costs of one way to store a weight: format, modes and store fixed, ranks open.

Allocation chooses among `Option`s and ranks; it sees a weight only through this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from ttcompress.planning.flash import EIGHT, Bits, flash_bytes, held_bytes
from ttcompress.planning.formats import Layout
from ttcompress.planning.spectrum import Spectrum
from ttcompress.stores import Store


@dataclass(frozen=True, slots=True)
class Cost:
    """The resources a choice needs: stored bytes, stored values, multiply-adds of a time step, and
    bytes in the flash of a device.
    """

    bytes: float = 0
    params: float = 0
    multiply_adds: float = 0
    flash: float = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.bytes + other.bytes,
            self.params + other.params,
            self.multiply_adds + other.multiply_adds,
            self.flash + other.flash,
        )

    def times(self, prices: Cost) -> float:
        """The total price, given the price of each resource."""
        return (
            self.bytes * prices.bytes
            + self.params * prices.params
            + self.multiply_adds * prices.multiply_adds
            + self.flash * prices.flash
        )


@dataclass(frozen=True)
class Option:
    """A layout in a store, with the spectra at its cuts.

    `floors` and `caps` bound each rank; where they are equal the rank is fixed. `energy` is the
    squared norm of the matrix, `lookup` says whether steps only look up its rows.
    `held` are the bits of a value in the flash of a device, None if there is none; `gates` are the
    blocks of rows. `truncation_weight` and `noise_weight` multiply the errors of truncation and of
    rounding when they are compared; `rounding_share` is the squared norm that rounding applies to,
    divided by the energy.
    """

    layout: Layout
    store: Store
    energy: float
    spectra: tuple[Spectrum, ...] = ()
    floors: tuple[int, ...] = ()
    caps: tuple[int, ...] = ()
    lookup: bool = False
    held: Bits | None = None
    gates: int = 1
    truncation_weight: float = 1.0
    noise_weight: float = 1.0
    rounding_share: float = 1.0

    @cached_property
    def descents(self) -> dict[Cost, Any]:
        """What allocation has found at each price, kept as long as the option."""
        return {}

    def at_price(self, prices: Cost) -> Option:
        """The option as it is taken at these prices; only a `CodedOption` adapts to them."""
        return self

    def at_least(self, ranks: Sequence[int]) -> Option:
        """The option whose error is never more than that of this one at these ranks."""
        return replace(self, floors=tuple(ranks))

    def is_like(self, other: Option) -> bool:
        """Whether the other is the same layout in the same store."""
        return self.layout == other.layout and self.store.name == other.store.name

    @cached_property
    def noise(self) -> float:
        """Relative squared error of rounding every core, times its weight.

        With left-orthogonal cores the relative errors of the cores add up: the error of a core is
        multiplied by isometries on its left, and on its right by rows whose norms are the singular
        values of that cut.
        """
        return self.noise_weight * self.store.noise * self.rounding_share * self.layout.cores

    def error(self, ranks: Sequence[int]) -> float:
        """Squared error that allocation minimises: discarded energy, and noise on what is left.

            error = w T + noise * (energy - T),    T = sum over cuts of the discarded squares

        T is the error of two cores, and an upper bound for more (Oseledets 2011, theorem 2.2). It
        may exceed the energy, and is not capped, so that each further rank still lowers it.
        Without spectra (fixed ranks in a fixed store need none) T is 0; w is `truncation_weight`.
        """
        left = max(0.0, self.energy - self._tails(ranks))
        return self.truncation(ranks) + self.noise * left

    def truncation(self, ranks: Sequence[int]) -> float:
        """The part of `error` that no store saves."""
        return self.truncation_weight * self._tails(ranks)

    def expected_error(self, ranks: Sequence[int]) -> float:
        """Squared error to report: the same bound with w = 1, but T is at most the energy."""
        tails = min(self.energy, self._tails(ranks))
        return tails + self.noise * (self.energy - tails)

    def _tails(self, ranks: Sequence[int]) -> float:
        if not self.spectra:
            return 0.0
        return sum(s.tail(rank) for s, rank in zip(self.spectra, ranks, strict=True))

    def cost(self, ranks: Sequence[int]) -> Cost:
        """Bytes (see `Store.estimate_bytes`), values, multiply-adds and flash at these ranks."""
        sizes = self.layout.core_params(ranks)
        work = self.layout.multiply_adds(ranks, lookup=self.lookup)
        bytes = sum(map(self.store.estimate_bytes, sizes))
        return Cost(bytes, sum(sizes), work, self.flash(ranks))

    def flash(self, ranks: Sequence[int]) -> int:
        """Bytes in flash at these ranks; 0 without a device."""
        return 0 if self.held is None else held_bytes(self.layout, ranks, self.held, self.gates)

    def descend(self, prices: Cost, start: Sequence[int]) -> tuple[int, ...]:
        """Descend from `start` to ranks that no single change improves, in error + price.

        Values and bytes are linear in each rank while its neighbours stay fixed, so the best rank
        is where the next squared singular value no longer pays for its slice. That is exact in one
        step for two cores, and coordinate descent for more.
        """
        ranks = tuple(start)
        for _ in range(20):
            before = ranks
            for k in range(len(ranks)):
                ranks = (*ranks[:k], self._best_rank(k, ranks, prices), *ranks[k + 1 :])
            if ranks == before:
                break
        return self._bounded(ranks)

    def _best_rank(self, k: int, ranks: tuple[int, ...], prices: Cost) -> int:
        if self.floors[k] == self.caps[k]:
            return self.caps[k]
        if prices.flash and k == self.layout.middle:
            return self._best_of_eight(k, ranks, prices)
        wanted = self._paying_rank_at(k, self._slope(k, ranks, prices))
        return max(1, self.floors[k], min(wanted, self.caps[k]))

    def _paying_rank_at(self, k: int, slope: float) -> int:
        """Rank k if another costs this much.

        A singular value s at this cut lowers the error by (w - noise) * s**2, see `error`.
        """
        return self.spectra[k].rank_above(slope / max(1e-9, self.truncation_weight - self.noise))

    def _best_of_eight(self, k: int, ranks: tuple[int, ...], prices: Cost) -> int:
        """The best rank where flash has a price, and columns come in eights.

        Between two multiples of eight a rank costs the rows of the second factor alone. So the best
        is one of the multiples next to the rank that pays for both factors, or in between.
        """
        rows, columns = self.layout.shape
        assert self.held is not None  # flash has a price
        slope = self._slope(k, ranks, prices)
        one, last, two = (
            prices.flash * flash_bytes(rows, columns, self.held, rank)
            for rank in (EIGHT, 2 * EIGHT - 1, 2 * EIGHT)
        )
        low = min(self._paying_rank_at(k, slope + (two - one) / EIGHT), self.caps[k])
        low -= low % EIGHT
        between = self._paying_rank_at(k, slope + two - last)
        tried = (low, max(low + 1, min(between, low + EIGHT)), low + EIGHT)

        def score(rank: int) -> float:
            chosen = (*ranks[:k], rank, *ranks[k + 1 :])
            return self.error(chosen) + self.cost(chosen).times(prices)

        return min((max(1, self.floors[k], min(rank, self.caps[k])) for rank in tried), key=score)

    def _slope(self, k: int, ranks: tuple[int, ...], prices: Cost) -> float:
        """The price of raising rank k by one."""
        sizes = self.layout.sizes
        left = ranks[k - 1] if k else 1
        right = ranks[k + 1] if k + 1 < len(ranks) else 1
        values = left * sizes[k] + sizes[k + 1] * right
        slope = values * (prices.params + prices.bytes * self.store.bytes_per_value)
        if prices.multiply_adds:
            more = (*ranks[:k], ranks[k] + 1, *ranks[k + 1 :])
            chain = self.layout.chain_multiply_adds
            slope += prices.multiply_adds * max(0, chain(more) - chain(ranks))
        return slope

    def _bounded(self, ranks: Sequence[int]) -> tuple[int, ...]:
        lowered = self.layout.attainable(ranks)
        return tuple(map(max, lowered, self.floors)) if self.floors else lowered
