"""Assigns each weight of a model to the first rule of a recipe that selects it: `match`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

from ttcompress.errors import PlanError
from ttcompress.model.weights import UNKNOWN, Weight
from ttcompress.planning.formats import KEEP, is_whole
from ttcompress.recipe.rules import SELECTOR_ROLES, Rule, matches_name, selects
from ttcompress.recipe.schema import Recipe
from ttcompress.recipe.wording import suggest
from ttcompress.stores import AUTO

MOST_LISTED = 12


@dataclass(frozen=True)
class Assignment:
    """What a recipe says about one weight.

    `rule` is rules[`index`] of the recipe, or None (`index` too) where none matched. `store` is the
    weight's own number type where `format` is keep. Modes of None are automatic; `ranks` are
    fixed interior ranks, or a single number that caps them.
    """

    weight: Weight
    rule: Rule | None
    index: int | None
    format: str
    store: str
    row_modes: tuple[int, ...] | None = None
    column_modes: tuple[int, ...] | None = None
    ranks: tuple[int, ...] | int | None = None

    @property
    def shares_budget(self) -> bool:
        """Whether the budget chooses its ranks or bits, or pays for the ranks that are fixed."""
        return self.format != KEEP and (not is_whole(self.format) or self.store == AUTO)


def match(recipe: Recipe, weights: Sequence[Weight]) -> tuple[Assignment, ...]:
    """Assign every weight, in order, to the first rule that matches it.

    A role may match nothing, so that a recipe suits many models; a name, a glob or a regular
    expression that never applies is an error.

    Raises:
        PlanError: a rule never applies, or modes do not multiply to a weight's shape; lists all.
    """
    assignments = tuple(_assign(recipe, weight) for weight in weights)
    problems = [*_dead_rules(recipe, assignments), *_wrong_modes(assignments)]
    if problems:
        raise PlanError("\n".join(problems))
    return assignments


def _assign(recipe: Recipe, weight: Weight) -> Assignment:
    for index, rule in enumerate(recipe.rules):
        if selects(rule.weights, weight):
            format = rule.format or recipe.format
            store = weight.dtype if format == KEEP else rule.store or recipe.store
            return Assignment(
                weight, rule, index, format, store, rule.row_modes, rule.column_modes, rule.ranks
            )
    recurrent_only = not recipe.rules and weight.role == "recurrent"
    if recurrent_only or (recipe.default == "decompose" and weight.role != UNKNOWN):
        return Assignment(weight, None, None, recipe.format, recipe.store)
    return Assignment(weight, None, None, KEEP, weight.dtype)


def _dead_rules(recipe: Recipe, assignments: Sequence[Assignment]) -> Iterator[str]:
    used = {assignment.index for assignment in assignments}
    for index, rule in enumerate(recipe.rules):
        if index in used or rule.weights in SELECTOR_ROLES:
            continue
        place = f"rules[{index}] (`{rule.weights}`)"
        taken = [a for a in assignments if selects(rule.weights, a.weight)]
        if taken:
            first = taken[0]
            assert first.rule is not None  # the rule itself matches, so an earlier one took it
            yield (
                f"{place} never applies: earlier rules already match"
                f" {_listed([a.weight for a in taken])}; the first is"
                f" rules[{first.index}] (`{first.rule.weights}`)."
                "\n    The first match wins: put the narrower rule first."
            )
        elif unknown := [a.weight for a in assignments if matches_name(rule.weights, a.weight)]:
            yield (
                f"{place} matches only matrices that no layer is known to use: {_listed(unknown)}."
                "\n    Only an exact name compresses such a matrix: if it is a weight, write a rule"
                f" for each, for example `- weights: {unknown[0].name}`."
            )
        else:
            yield (
                f"{place} matches no weight.{suggest(rule.weights, SELECTOR_ROLES)}"
                f"\n    The model's weights are: {_listed([a.weight for a in assignments])}."
            )


def _listed(weights: Sequence[Weight]) -> str:
    names = ", ".join(weight.name for weight in weights[:MOST_LISTED])
    more = len(weights) - MOST_LISTED
    return f"{names} and {more} more" if more > 0 else names


def _wrong_modes(assignments: Sequence[Assignment]) -> Iterator[str]:
    for assignment in assignments:
        rows, columns = assignment.row_modes, assignment.column_modes
        shape = assignment.weight.shape
        if rows is None or columns is None or (prod(rows), prod(columns)) == shape:
            continue
        cures = [
            f"The {side} modes must multiply to {size}, for example {_example(size, len(modes))}."
            for side, modes, size in (("row", rows, shape[0]), ("column", columns, shape[1]))
            if prod(modes) != size
        ]
        yield (
            f"{assignment.weight.name}: row_modes {list(rows)} and column_modes {list(columns)}"
            f" make a {prod(rows)} x {prod(columns)} matrix,"
            f" but the weight is {shape[0]} x {shape[1]}"
            f" (rules[{assignment.index}]).\n    {' '.join(cures)}"
        )


def _example(size: int, count: int) -> list[int]:
    """At most `count` modes that multiply to `size`, as even as its primes allow.

    >>> _example(1024, 3), _example(83, 2)
    ([8, 8, 16], [83])
    """
    modes = [1] * count
    for prime in reversed(_primes(size)):
        modes[modes.index(min(modes))] *= prime
    return sorted(mode for mode in modes if mode > 1) or [1]


def _primes(size: int) -> list[int]:
    """Prime factors, smallest first."""
    factors, divisor = [], 2
    while divisor * divisor <= size:
        while size % divisor == 0:
            factors.append(divisor)
            size //= divisor
        divisor += 1
    return [*factors, size] if size > 1 else factors
