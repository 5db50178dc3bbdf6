"""Chooses ranks and stores for every weight under one budget: `allocate` is the entry.

The method is Lagrangian (Shoham and Gersho, IEEE Trans. ASSP 36, 1988): at a price per byte, or
value, or multiply-add, every weight takes the option and the ranks that minimise

    error + price * cost

and bisection finds the smallest price at which all of them stay within the allowance. Costs come in
steps, so the result leaves a remainder: it is spent rank by rank, the largest gain per cost first,
and single options are swapped while that helps. For two-core trains with a given store, bisection
alone is exact except for that remainder.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import exp, log

from ttcompress.planning.candidates import Cost, Option

Menu = tuple[Option, ...]
"""The options of one weight."""

_UNBOUNDED = float("inf")
_EVEN: tuple[float, ...] = (1.0,) * 4
_RUNNERS_UP = 3
_ROUNDS = 6
_COARSE, _FINE = 3e-2, 1e-4
"""Precision of a price: while several limits are balanced, and at the end."""


@dataclass(frozen=True)
class Allowance:
    """The most that all weights together may take; infinity where there is no limit."""

    bytes: float = _UNBOUNDED
    params: float = _UNBOUNDED
    multiply_adds: float = _UNBOUNDED
    flash: float = _UNBOUNDED

    def usage(self, cost: Cost) -> float:
        """The largest fraction of any limit that is used: at most 1 if all are met."""
        return max(self._fractions(cost))

    def prices(self, weights: Sequence[float]) -> Cost:
        """Prices of each resource in the order of `limits`, each weight divided by its limit."""
        return Cost(*(w / limit for w, limit in zip(weights, self.limits, strict=True)))

    def shift_weights(self, weights: Sequence[float], cost: Cost) -> tuple[float, ...]:
        """Weights for the next round: a resource that is not used up becomes cheaper.

        A multiplicative update: at its fixed point each limit is used up or its price is nearly 0.
        """
        return tuple(
            w * max(1e-6, used) ** 2 for w, used in zip(weights, self._fractions(cost), strict=True)
        )

    def _fractions(self, cost: Cost) -> tuple[float, ...]:
        return (
            cost.bytes / self.bytes,
            cost.params / self.params,
            cost.multiply_adds / self.multiply_adds,
            cost.flash / self.flash,
        )

    def price(self, prices: Cost) -> float:
        """What it costs to use up every limit that is set."""
        each = (prices.bytes, prices.params, prices.multiply_adds, prices.flash)
        return sum(x * price for x, price in zip(self.limits, each, strict=True) if x < _UNBOUNDED)

    @property
    def limits(self) -> tuple[float, ...]:
        """Of bytes, values, multiply-adds and flash."""
        return (self.bytes, self.params, self.multiply_adds, self.flash)

    @property
    def limit_count(self) -> int:
        """How many limits are set."""
        return sum(x < _UNBOUNDED for x in self.limits)


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
        """The resources it needs."""
        return self.option.cost(self.ranks)


def total_cost(choices: Sequence[Choice]) -> Cost:
    """The resources that all choices need together."""
    return sum((choice.cost for choice in choices), Cost())


def allocate(menus: Sequence[Menu], allowance: Allowance) -> tuple[Choice, ...] | None:
    """Choose from each menu so that the total error is least; None if nothing fits the allowance.

    Without any limit every rank is as large as its cap.
    """
    if not allowance.limit_count:
        return tuple(_choose_best(menu, Cost()) for menu in menus)
    if allowance.usage(total_cost(choose_smallest(menus, allowance))) > 1:
        return None
    unit = _balance_prices(menus, allowance)
    bracket = _bisect(menus, allowance, unit)
    choices = _refine(bracket, allowance, unit)
    choices = _swap_options(choices, menus, allowance, unit, bracket.price)
    return _refine_steps(choices, allowance, unit, bracket.price)


def allocate_around_largest(
    menus: Sequence[Menu], allowance: Allowance
) -> tuple[Choice, ...] | None:
    """As `allocate`, but where one weight takes most bytes, each of its options is tried in turn.

    Its steps in bits are then larger than all else: no price may lie between one that leaves much
    of the allowance unused and one that leaves the others nothing. The same bound as in
    `_swap_options` rules most options out.
    """
    choices = allocate(menus, allowance)
    if choices is None or not allowance.limit_count:
        return choices
    sizes = [choice.cost.bytes for choice in choices]
    largest = sizes.index(max(sizes))
    if 2 * sizes[largest] < sum(sizes):
        return choices
    unit = _balance_prices(menus, allowance)
    prices = _scale(unit, _bisect(menus, allowance, unit).price)
    ranked = [_rank_options(menu, prices) for menu in menus]
    bound = sum(rivals[0][0] for rivals in ranked) - allowance.price(prices)
    for score, option in ranked[largest]:
        if bound + score - ranked[largest][0][0] >= _error(choices):
            break
        tried = allocate([*menus[:largest], (option,), *menus[largest + 1 :]], allowance)
        if tried and _error(tried) < _error(choices):
            choices = tried
    return choices


def choose_smallest(menus: Sequence[Menu], allowance: Allowance) -> tuple[Choice, ...]:
    """The choices that need the fewest resources, whatever their error."""
    unit = allowance.prices(_EVEN)
    return tuple(_choose_best(menu, _scale(unit, 1e30), ignore_error=True) for menu in menus)


@dataclass(frozen=True)
class _Bracket:
    """The choices at the smallest price found that stays within the allowance, and just below."""

    above: tuple[Choice, ...]
    below: tuple[Choice, ...]
    price: float


def _error(choices: Sequence[Choice]) -> float:
    return sum(choice.error for choice in choices)


def _balance_prices(menus: Sequence[Menu], allowance: Allowance) -> Cost:
    """Balance the prices of the resources, so that each limit is used up or nearly free."""
    weights = _EVEN
    unit, least, price = allowance.prices(weights), _UNBOUNDED, None
    for _ in range(0 if allowance.limit_count == 1 else _ROUNDS):
        tried = allowance.prices(weights)
        bracket = _bisect(menus, allowance, tried, _COARSE, price)
        if _error(bracket.above) < least:
            unit, least = tried, _error(bracket.above)
        weights, price = allowance.shift_weights(weights, total_cost(bracket.above)), bracket.price
    return unit


def _refine(bracket: _Bracket, allowance: Allowance, unit: Cost) -> tuple[Choice, ...]:
    """The best choices within the allowance near the price found.

    Both sides of the last step are tried, each with its options fixed and its ranks chosen anew: a
    step in bits is large, one in ranks is small.
    """
    candidates = [_spend_remainder(bracket.above, allowance)]
    for side in (bracket.above, bracket.below):
        shared = _choose_ranks([choice.option for choice in side], allowance, unit, bracket.price)
        candidates += [shared] if shared else []
    return min(candidates, key=_error)


def _choose_ranks(
    options: Sequence[Option], allowance: Allowance, unit: Cost, price: float
) -> tuple[Choice, ...] | None:
    """Choose ranks for given options; None if even the smallest ranks need too much."""
    menus = [(option,) for option in options]
    if allowance.usage(total_cost(choose_smallest(menus, allowance))) > 1:
        return None
    return _spend_remainder(_bisect(menus, allowance, unit, around=price).above, allowance)


def _swap_options(
    choices: tuple[Choice, ...],
    menus: Sequence[Menu],
    allowance: Allowance,
    unit: Cost,
    price: float,
) -> tuple[Choice, ...]:
    """Try the runners-up of one weight after another; keep those that lower the error.

    This finds what bisection cannot: an option that is best at no price, but fits the bytes that
    are left. Weak duality rules most of them out: for any price p, choices x within the allowance A
    have

        error(x) >= sum over weights of min(error + p * cost) - p * A

    and replacing one weight's minimum by the score of another option raises this bound.
    """
    prices = _scale(unit, price)
    ranked = [_rank_options(menu, prices) for menu in menus]
    bound = sum(rivals[0][0] for rivals in ranked) - allowance.price(prices)
    for i, rivals in enumerate(ranked):
        for score, option in rivals[: _RUNNERS_UP + 1]:
            hopeless = bound + score - rivals[0][0] >= _error(choices)
            if hopeless or option.is_like(choices[i].option):
                continue
            options = [choice.option for choice in choices]
            options[i] = option
            tried = _choose_ranks(options, allowance, unit, price)
            if tried and _error(tried) < _error(choices):
                choices = tried
    return choices


def _refine_steps(
    choices: tuple[Choice, ...], allowance: Allowance, unit: Cost, price: float
) -> tuple[Choice, ...]:
    """Spend what ranks could not on the steps of coded values, at the ranks that were chosen."""
    low, high = price / 8, price * 8
    while high / low > 1 + _FINE:
        middle = (low * high) ** 0.5
        prices = _scale(unit, middle)
        tried = tuple(Choice(choice.option.at_price(prices), choice.ranks) for choice in choices)
        if allowance.usage(total_cost(tried)) > 1:
            low = middle
            continue
        high = middle
        if _error(tried) <= _error(choices):
            choices = tried
    return choices


def _rank_options(menu: Menu, prices: Cost) -> list[tuple[float, Option]]:
    """The options, each with the score error + price of its best ranks, the best first."""
    best = [_choose_best((option,), prices) for option in menu]
    scores = [choice.error + choice.cost.times(prices) for choice in best]
    order = sorted(range(len(menu)), key=scores.__getitem__)
    return [(scores[index], menu[index]) for index in order]


def _bisect(
    menus: Sequence[Menu],
    allowance: Allowance,
    unit: Cost,
    precision: float = _FINE,
    around: float | None = None,
) -> _Bracket:
    """Find the smallest price that stays within the allowance, near `around` if that is given.

    What is used is nearly linear in the logarithm of the price, so the next price to try is
    interpolated; after a step that did not halve the interval it is the middle. The search ends
    early once all but `precision` of the allowance is used.
    """
    energy = sum(menu[0].energy for menu in menus) or 1.0
    low, high = (around / 8, around * 8) if around else (1e-16 * energy, 1e6 * energy)
    above, below = choose_smallest(menus, allowance), _choose_at_price(menus, _scale(unit, low))
    least, most = (allowance.usage(total_cost(side)) for side in (above, below))
    if most <= 1:
        return _Bracket(below, below, low)
    share = 0.5
    while high / low > 1 + precision:
        width = log(high / low)
        middle = low * exp(share * width)
        choices = _choose_at_price(menus, _scale(unit, middle))
        usage = allowance.usage(total_cost(choices))
        if usage > 1:
            low, below, most = middle, choices, usage
        else:
            high, above, least = middle, choices, usage
            if usage > 1 - precision:
                break
        share = 0.5
        if log(high / low) < 0.51 * width:
            share = min(0.95, max(0.05, (most - 1 + precision / 2) / (most - least)))
    return _Bracket(above, below, high)


def _choose_at_price(menus: Sequence[Menu], prices: Cost) -> tuple[Choice, ...]:
    return tuple(_choose_best(menu, prices) for menu in menus)


def _choose_best(menu: Menu, prices: Cost, ignore_error: bool = False) -> Choice:
    """The option and the ranks with the least error + price.

    With three or more cores the cost is a sum of products of neighbouring ranks and not convex, so
    each descent starts once from the largest ranks and once from the smallest.
    """

    def score(choice: Choice) -> float:
        price = choice.cost.times(prices)
        return price if ignore_error else choice.error + price

    return min((start for one in menu for start in _descents(one, prices)), key=score)


def _descents(option: Option, prices: Cost) -> tuple[Choice, ...]:
    """Where the descents from both ends arrive, remembered: searches ask at the same prices."""
    found: tuple[Choice, ...] | None = option.descents.get(prices)
    if found is None:
        taken = option.at_price(prices)
        vars(taken)["descents"] = option.descents  # at any price, it is the same as this one
        ends = {taken.caps, taken.floors if len(taken.caps) > 1 else taken.caps}
        found = tuple(Choice(taken, taken.descend(prices, start)) for start in ends)
        option.descents[prices] = found
    return found


def _scale(unit: Cost, price: float) -> Cost:
    return Cost(
        unit.bytes * price, unit.params * price, unit.multiply_adds * price, unit.flash * price
    )


def _spend_remainder(choices: tuple[Choice, ...], allowance: Allowance) -> tuple[Choice, ...]:
    """Spend what is left, one rank at a time, the largest gain per cost first."""
    unit = allowance.prices(_EVEN)
    while True:
        spent = total_cost(choices)
        steps = [
            ((choices[i].error - more.error) / (extra.times(unit) or 1e-12), i, more)
            for i, more in _raise_one_rank(choices)
            if (extra := _subtract(more.cost, choices[i].cost)).times(unit) >= 0
            and allowance.usage(spent + extra) <= 1
            and more.error < choices[i].error
        ]
        if not steps:
            return choices
        _, best, more = max(steps, key=lambda step: (step[0], -step[1]))
        choices = (*choices[:best], more, *choices[best + 1 :])


def _raise_one_rank(choices: Sequence[Choice]) -> Iterator[tuple[int, Choice]]:
    for i, choice in enumerate(choices):
        for k, rank in enumerate(choice.ranks):
            if rank < choice.option.caps[k]:
                ranks = (*choice.ranks[:k], rank + 1, *choice.ranks[k + 1 :])
                if choice.option.layout.attainable(ranks) == ranks:
                    yield i, Choice(choice.option, ranks)


def _subtract(a: Cost, b: Cost) -> Cost:
    return a + _scale(b, -1.0)
