"""Sharing one budget over all weights, over ranks and bits together: options enter, choices leave.

Lagrange: at a price for each byte (or value, or multiply-add) every weight takes the option and the
ranks with the least error + price; the smallest price that stays within the allowance is found by
bisection. What the last step of the price leaves over is spent rank by rank, best error per cost
first, and single options are swapped while that helps. For two-core trains with a given store the
bisection alone is exact but for its last step (Shoham and Gersho, 1988).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from ttcompress.plan.options import Cost, Option

Menu = tuple[Option, ...]
"""The options of one weight."""

_UNBOUNDED = float("inf")
_RUNNERS_UP = 3


@dataclass(frozen=True)
class Allowance:
    """The most that all weights together may take; infinity where there is no limit."""

    bytes: float = _UNBOUNDED
    params: float = _UNBOUNDED
    multiply_adds: float = _UNBOUNDED

    def usage(self, cost: Cost) -> float:
        """The largest used fraction of a limit: at most 1 where all are met."""
        return max(self._fractions(cost))

    def prices(self, weights: Sequence[float]) -> Cost:
        """A unit of price: what each resource weighs, relative to its limit."""
        allowance = (self.bytes, self.params, self.multiply_adds)
        return Cost(*(w / limit for w, limit in zip(weights, allowance, strict=True)))

    def shifted(self, weights: Sequence[float], cost: Cost) -> tuple[float, ...]:
        """Weights for the next round: a resource that is not used up becomes cheaper."""
        return tuple(
            w * max(1e-6, used) ** 2 for w, used in zip(weights, self._fractions(cost), strict=True)
        )

    def _fractions(self, cost: Cost) -> tuple[float, float, float]:
        return (
            cost.bytes / self.bytes,
            cost.params / self.params,
            cost.multiply_adds / self.multiply_adds,
        )

    @property
    def standing(self) -> int:
        """How many limits stand."""
        return sum(x < _UNBOUNDED for x in (self.bytes, self.params, self.multiply_adds))


@dataclass(frozen=True)
class Choice:
    """An option with its ranks."""

    option: Option
    ranks: tuple[int, ...]

    @cached_property
    def error(self) -> float:
        """Expected squared error."""
        return self.option.error(self.ranks)

    @cached_property
    def cost(self) -> Cost:
        """What it takes."""
        return self.option.cost(self.ranks)


def total(choices: Sequence[Choice]) -> Cost:
    """What all choices take together."""
    return sum((choice.cost for choice in choices), Cost())


def allocate(menus: Sequence[Menu], allowance: Allowance) -> tuple[Choice, ...] | None:
    """One choice for each menu, the least total error within the allowance; None if none is.

    Without any limit every rank is as large as its cap.
    """
    if not allowance.standing:
        return tuple(_cheapest(menu, Cost()) for menu in menus)
    if allowance.usage(total(smallest(menus, allowance))) > 1:
        return None
    found: list[tuple[tuple[Choice, ...], Cost]] = []
    weights: tuple[float, ...] = (1.0, 1.0, 1.0)
    for _ in range(1 if allowance.standing == 1 else 12):
        unit = allowance.prices(weights)
        choices = _within(menus, allowance, unit)
        found.append((choices, unit))
        weights = allowance.shifted(weights, total(choices))
    best, unit = min(found, key=lambda pair: _error(pair[0]))
    return _swapped(best, menus, allowance, unit)


def smallest(menus: Sequence[Menu], allowance: Allowance) -> tuple[Choice, ...]:
    """The choices that take the least, whatever the error."""
    unit = allowance.prices((1.0, 1.0, 1.0))
    return tuple(_cheapest(menu, _scaled(unit, 1e30), errorless=True) for menu in menus)


def _error(choices: Sequence[Choice]) -> float:
    return sum(choice.error for choice in choices)


def _within(menus: Sequence[Menu], allowance: Allowance, unit: Cost) -> tuple[Choice, ...]:
    """The best choices within the allowance at multiples of one unit of price.

    Where the bisection ends, the options of both sides of the last step are tried with ranks
    shared anew: a step in bits is large, one in ranks is small.
    """
    above, below = _bisect(menus, allowance, unit)
    candidates = [_filled(above, allowance)]
    for side in (above, below):
        shared = _shared([choice.option for choice in side], allowance, unit)
        candidates += [shared] if shared else []
    return min(candidates, key=_error)


def _shared(
    options: Sequence[Option], allowance: Allowance, unit: Cost
) -> tuple[Choice, ...] | None:
    """Ranks for given options; None where even the smallest ranks take too much."""
    menus = [(option,) for option in options]
    if allowance.usage(total(smallest(menus, allowance))) > 1:
        return None
    return _filled(_bisect(menus, allowance, unit)[0], allowance)


def _swapped(
    choices: tuple[Choice, ...], menus: Sequence[Menu], allowance: Allowance, unit: Cost
) -> tuple[Choice, ...]:
    """Try the runners-up of one weight after another; keep what lowers the error.

    It mends what the bisection cannot see: an option that is best at no price at all, but fits the
    bytes that are there.
    """
    for i, menu in enumerate(menus):
        for option in _runners_up(menu, choices[i]):
            options = [choice.option for choice in choices]
            tried = _shared([*options[:i], option, *options[i + 1 :]], allowance, unit)
            if tried and _error(tried) < _error(choices):
                choices = tried
    return choices


def _runners_up(menu: Menu, chosen: Choice) -> list[Option]:
    """The options that come closest in error at the bytes of the chosen one."""
    budget = Allowance(bytes=max(1.0, chosen.cost.bytes))
    unit = budget.prices((1.0, 1.0, 1.0))
    rivals = [
        (_error(found), index)
        for index, option in enumerate(menu)
        if option != chosen.option and (found := _shared([option], budget, unit))
    ]
    return [menu[index] for _, index in sorted(rivals)[:_RUNNERS_UP]]


def _bisect(
    menus: Sequence[Menu], allowance: Allowance, unit: Cost
) -> tuple[tuple[Choice, ...], tuple[Choice, ...]]:
    """Choices at the smallest price that stays within the allowance, and just below it."""
    energy = sum(menu[0].energy for menu in menus) or 1.0
    low, high = 1e-16 * energy, 1e6 * energy
    above, below = smallest(menus, allowance), _at_price(menus, _scaled(unit, low))
    if allowance.usage(total(below)) <= 1:
        return below, below
    while high / low > 1 + 1e-6:
        middle = (low * high) ** 0.5
        choices = _at_price(menus, _scaled(unit, middle))
        if allowance.usage(total(choices)) <= 1:
            high, above = middle, choices
        else:
            low, below = middle, choices
    return above, below


def _at_price(menus: Sequence[Menu], prices: Cost) -> tuple[Choice, ...]:
    return tuple(_cheapest(menu, prices) for menu in menus)


def _cheapest(menu: Menu, prices: Cost, errorless: bool = False) -> Choice:
    """The option and ranks with the least error + price.

    Cost is not convex in the ranks of three and more cores, so each descent starts once from the
    largest ranks and once from the smallest.
    """

    def score(choice: Choice) -> float:
        price = choice.cost.times(prices)
        return price if errorless else choice.error + price

    starts = [
        Choice(option, option.descend(prices, start) if option.layout else ())
        for option in menu
        for start in dict.fromkeys((option.caps, option.floors))
    ]
    return min(starts, key=score)


def _scaled(unit: Cost, price: float) -> Cost:
    return Cost(unit.bytes * price, unit.params * price, unit.multiply_adds * price)


def _filled(choices: tuple[Choice, ...], allowance: Allowance) -> tuple[Choice, ...]:
    """Spend what is left, one rank at a time, the best error per cost first."""
    unit = allowance.prices((1.0, 1.0, 1.0))
    while True:
        spent = total(choices)
        steps = [
            ((choices[i].error - more.error) / (extra.times(unit) or 1e-12), i, more)
            for i, more in _one_more(choices)
            if (extra := _difference(more.cost, choices[i].cost)).times(unit) >= 0
            and allowance.usage(spent + extra) <= 1
            and more.error < choices[i].error
        ]
        if not steps:
            return choices
        _, best, more = max(steps, key=lambda step: (step[0], -step[1]))
        choices = (*choices[:best], more, *choices[best + 1 :])


def _one_more(choices: Sequence[Choice]) -> Iterator[tuple[int, Choice]]:
    for i, choice in enumerate(choices):
        for k, rank in enumerate(choice.ranks):
            if rank < choice.option.caps[k]:
                ranks = (*choice.ranks[:k], rank + 1, *choice.ranks[k + 1 :])
                layout = choice.option.layout
                if layout is not None and layout.attainable(ranks) == ranks:
                    yield i, Choice(choice.option, ranks)


def _difference(a: Cost, b: Cost) -> Cost:
    return Cost(a.bytes - b.bytes, a.params - b.params, a.multiply_adds - b.multiply_adds)
