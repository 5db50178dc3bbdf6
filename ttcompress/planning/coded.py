"""The option to store a weight entropy-coded: `CodedOption`, whose step follows from the price.

Reverse water-filling over the components of all weights: at a price a byte all values get the same
step in units of the cost, and a component is kept while it saves more error than its bits cost. See
`rate` for the numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from ttcompress.planning.candidates import Cost, Option
from ttcompress.planning.rate import KAPPA, bits, distortion
from ttcompress.stores.coded import Coded
from ttcompress.system.late import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_SIDE, _STREAM = 0.5, 24.0
"""Bytes that a row or a column of codes takes for its scale and class, and a core for the rest."""

_LEAST_VARIANCE = 0.25
"""Of the first component's values, in units of the squared step: coarser, nothing would be left."""

_UNPAYABLE = 1e300
"""The price of a byte at which every step is as coarse as it may be."""

_FINEST = 2.0**-12
"""The finest step, relative to the coarsest, however little bytes cost: beyond float16."""


@dataclass(frozen=True)
class CodedOption(Option):
    """An option in the store `coded`, as fine as its store's step.

    `coarsest` bounds the step that a price may choose.
    """

    coarsest: float = float("inf")

    def at_price(self, prices: Cost) -> CodedOption:
        """At the step where one more bit saves the error that it costs."""
        largest = self.energy
        if self.spectra:
            largest = self.spectra[-1].values[0] ** 2
        values = self.layout.sizes[-1]
        coarsest = min(self.coarsest, (largest / values / _LEAST_VARIANCE) ** 0.5) or 1.0
        weight = KAPPA * self.noise_weight
        step = (prices.bytes / 8 / weight) ** 0.5
        return self.at_step(max(_FINEST * coarsest, min(step, coarsest)))

    def at_least(self, ranks: Sequence[int]) -> CodedOption:
        """As in `Option`; the step is at most this one's."""
        return replace(self, floors=tuple(ranks), coarsest=self._square**0.5)

    def coarsened(self, ranks: Sequence[int], allowed: float) -> CodedOption:
        """At the largest step, of those no finer than this one's, with at most this error."""
        low = self._square**0.5
        high = max(low, self.at_price(Cost(bytes=_UNPAYABLE))._square ** 0.5)
        for _ in range(30):
            middle = (low * high) ** 0.5
            if self.at_step(middle).error(ranks) <= allowed:
                low = middle
            else:
                high = middle
        return self.at_step(low)

    def at_step(self, step: float) -> CodedOption:
        """The same with this step."""
        assert isinstance(self.store, Coded)
        return replace(self, store=self.store.at(step))

    def error(self, ranks: Sequence[int]) -> float:
        """As in `Option`, with the distortion of every component in place of one noise."""
        return self.truncation(ranks) + self.noise_weight * self._noise(ranks)

    def expected_error(self, ranks: Sequence[int]) -> float:
        """Squared error to report: all errors count with weight 1, at most the energy."""
        return min(self.energy, self._tails(ranks) + self._noise(ranks))

    def cost(self, ranks: Sequence[int]) -> Cost:
        """Bytes by the rates of all components, values and multiply-adds at these ranks."""
        coded = 0.0
        for count, rates in self._rates(ranks):
            coded += count * float(rates.sum()) / 8 + _SIDE * (len(rates) + count) + _STREAM
        work = self.layout.multiply_adds(ranks, lookup=self.lookup)
        return Cost(coded, sum(self.layout.core_params(ranks)), work, self.flash(ranks))

    def descend(self, prices: Cost, start: Sequence[int]) -> tuple[int, ...]:
        """As in `Option`; each rank is searched for with the others fixed."""
        ranks = tuple(start)
        for _ in range(20):
            before = ranks
            for k in range(len(ranks)):
                ranks = (*ranks[:k], self._search_rank(k, ranks, prices), *ranks[k + 1 :])
            if ranks == before or len(ranks) == 1:
                break
        return self._bounded(ranks)

    @property
    def _square(self) -> float:
        assert isinstance(self.store, Coded) and self.store.step is not None
        return self.store.step**2

    def _search_rank(self, k: int, ranks: tuple[int, ...], prices: Cost) -> int:
        """The rank at cut k with the least error + price, which has one minimum."""
        low, high = max(1, self.floors[k]), self.caps[k]
        if low >= high:
            return high
        if len(ranks) == 1 and not prices.flash:
            return max(low, min(high, self._paying_rank(prices)))

        def total(rank: int) -> float:
            tried = (*ranks[:k], rank, *ranks[k + 1 :])
            return self.error(tried) + self.cost(tried).times(prices)

        while low < high:
            middle = (low + high) // 2
            if total(middle) <= total(middle + 1):
                high = middle
            else:
                low = middle + 1
        return low

    def _paying_rank(self, prices: Cost) -> int:
        """With two cores, how many components save more than they cost; each is one of a sum."""
        squares = self.spectra[0].squares
        price = np.zeros(len(squares))
        for values, rates in self._rates_of_two:
            price += values * prices.bytes / 8 * rates + _SIDE * prices.bytes
        more = sum(self.layout.sizes)
        chain = self.layout.chain_multiply_adds
        work = chain((2,)) - chain((1,))
        price += more * prices.params + work * prices.multiply_adds
        gain = self.truncation_weight * squares - self.noise_weight * self._lost_of_two
        return int((gain > price).sum())

    @cached_property
    def _rates_of_two(self) -> list[tuple[int, Floats]]:
        """With two cores, the values of a component in each, and the bits of one."""
        squares = self.spectra[0].squares
        return [(n, bits(squares / (n * self._square))) for n in self.layout.sizes]

    @cached_property
    def _lost_of_two(self) -> Floats:
        """With two cores, the squared error of each component as it is rounded."""
        squares = self.spectra[0].squares
        kept = np.ones(len(squares))
        for values in self.layout.sizes:
            variance = np.maximum(squares / (values * self._square), 1e-12)
            kept *= 1 - np.minimum(1, distortion(variance) / variance)
        return squares * (1 - kept)

    def _noise(self, ranks: Sequence[int]) -> float:
        """The squared error of rounding all cores."""
        if not self.spectra:
            return self._noise_of_matrix()
        if len(ranks) == 1:
            return float(self._lost_of_two[: ranks[0]].sum())
        return sum(
            count * self._square * float(distortion(squares / (count * self._square)).sum())
            for count, squares in self._components(ranks)
        )

    def _noise_of_matrix(self) -> float:
        """The squared error of rounding a matrix that is not decomposed.

        Where inputs are known, later values make up for the errors of earlier ones; the less so
        the more of them are rounded to 0, and what is rounded away as a whole costs its energy.
        """
        apart = self.energy * self.rounding_share
        if not apart:
            return 0.0
        variance = apart / (sum(self.layout.sizes) * self._square)
        share = min(1.0, float(distortion(np.array(variance))) / variance)
        return share * (apart * (1 - share) + self.energy * share)

    def _rates(self, ranks: Sequence[int]) -> Iterator[tuple[int, Floats]]:
        """For each core, the values of a component, and the bits of one in each component."""
        if len(ranks) == 1:
            yield from ((count, rates[: ranks[0]]) for count, rates in self._rates_of_two)
            return
        for count, squares in self._components(ranks):
            yield count, bits(squares / (count * self._square))

    def _components(self, ranks: Sequence[int]) -> Iterator[tuple[int, Floats]]:
        """For each core, the values of a component and the squared norm of each, in cost units."""
        sizes = self.layout.sizes
        if not self.spectra:
            rows = self.layout.shape[0] if not self.layout.decomposes else 1
            energy = self.energy * self.rounding_share
            yield sum(self.layout.core_params(ranks)) // rows, np.full(rows, energy / rows)
            return
        edges = (1, *ranks)
        for size, before, spectrum, rank in zip(sizes, edges, self.spectra, ranks, strict=False):
            yield size * before, spectrum.squares[:rank]
        yield sizes[-1], self.spectra[-1].squares[: ranks[-1]]
