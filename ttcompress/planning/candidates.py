"""One way to store a weight: format, modes and store fixed, ranks open. Errors and costs follow.

The allocation chooses among `Option`s and ranks; it sees a weight only through this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from ttcompress.planning.formats import Layout
from ttcompress.planning.spectrum import Spectrum
from ttcompress.stores import Store


@dataclass(frozen=True, slots=True)
class Cost:
    """What a choice takes: stored bytes, stored values, multiply-adds for one step."""

    bytes: float = 0
    params: float = 0
    multiply_adds: float = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.bytes + other.bytes,
            self.params + other.params,
            self.multiply_adds + other.multiply_adds,
        )

    def times(self, prices: Cost) -> float:
        """The price of it all."""
        return (
            self.bytes * prices.bytes
            + self.params * prices.params
            + self.multiply_adds * prices.multiply_adds
        )


@dataclass(frozen=True)
class Option:
    """A layout in a store, with the spectra at its cuts.

    `floors` and `caps` bound each rank; where they are equal the rank is fixed. `energy` is the
    squared norm of the matrix, `lookup` says that steps only look up its rows. `noise_weight` is
    what rounding counts beside truncation, `rounding_share` what part of the energy rounding takes
    its fraction of (above 1: a multiple).
    """

    layout: Layout
    store: Store
    energy: float
    spectra: tuple[Spectrum, ...] = ()
    floors: tuple[int, ...] = ()
    caps: tuple[int, ...] = ()
    lookup: bool = False
    noise_weight: float = 1.0
    rounding_share: float = 1.0

    @cached_property
    def noise(self) -> float:
        """Relative squared error of rounding every core, times its weight.

        With left-orthogonal cores the relative errors of the cores add: each is multiplied by
        isometries on its left and by rows of norm one singular value on its right.
        """
        return self.noise_weight * self.store.noise * self.rounding_share * self.layout.cores

    def error(self, ranks: Sequence[int]) -> float:
        """Squared error as choices count it: discarded energy, and rounding noise on what is left.

        A bound for three and more cores: what each cut discards of the matrix is added up, and may
        be more than there is. Uncapped, so that every rank more still counts there. Without spectra
        (fixed ranks in a fixed store need none) nothing is known to be discarded.
        """
        tails = self._tails(ranks)
        return tails + self.noise * max(0.0, self.energy - tails)

    def expected_error(self, ranks: Sequence[int]) -> float:
        """Squared error to be told of: the same bound, but never more discarded than there is."""
        tails = min(self.energy, self._tails(ranks))
        return tails + self.noise * (self.energy - tails)

    def _tails(self, ranks: Sequence[int]) -> float:
        if not self.spectra:
            return 0.0
        return sum(s.tail(rank) for s, rank in zip(self.spectra, ranks, strict=True))

    def cost(self, ranks: Sequence[int]) -> Cost:
        """Bytes (see `Store.estimate_bytes`), values and multiply-adds at these ranks."""
        sizes = self.layout.core_params(ranks)
        work = self.layout.multiply_adds(ranks, lookup=self.lookup)
        return Cost(sum(map(self.store.estimate_bytes, sizes)), sum(sizes), work)

    def descend(self, prices: Cost, start: Sequence[int]) -> tuple[int, ...]:
        """Ranks that no single change improves, in error + price, from a starting point.

        Values and bytes are linear in each rank when its neighbours stand still, so the best rank
        is where the next squared singular value no longer pays for its slice: exact in one step
        for two cores, coordinate descent for more.
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
        slope = self._slope(k, ranks, prices)
        wanted = self.spectra[k].rank_above(slope / max(1e-9, 1.0 - self.noise))
        return max(1, self.floors[k], min(wanted, self.caps[k]))

    def _slope(self, k: int, ranks: tuple[int, ...], prices: Cost) -> float:
        """The price of one more of rank k."""
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
