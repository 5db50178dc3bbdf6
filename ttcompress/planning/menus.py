"""From what a recipe assigns to a weight to the options the allocation chooses from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ttcompress.planning.allocation import Menu
from ttcompress.planning.candidates import Cost, Option
from ttcompress.planning.formats import Layout, formats_named
from ttcompress.planning.spectrum import Cut, Spectra
from ttcompress.recipe import Assignment, Budget, Recipe
from ttcompress.stores import AUTO, STORES, Store, auto_stores

ROUNDING_WEIGHT = 3.0
"""What rounding counts beside truncation, error for error, when bits and ranks are chosen together.

Rounding spreads its error over all directions; truncation gives up those the weights, and as a rule
the inputs, use least. Of 1, 1.5, 2 and 3, the last was best or within 0.2 % of it in the metrics of
both sample models, at factors 8, 16 and 32, in mps and auto.
"""

WEIGHTED_ROUNDING_WEIGHT = 0.75
"""The same where calibration weighs errors by the inputs: truncation then counts what the inputs
use, and rounding makes up for itself. Of 0.5, 1 and 2 in the sample models, at factors 8, 16, 32:
mps was best at 0.5, auto at 1.
"""

TUNED_ROUNDING = 4.0
"""Times as much where a fine-tuning follows: training wins back truncation better than rounding.

Of `charlm`'s mps under one number of bits, 3 epochs brought 5 and 6 bits lower than 3, 4 and 8 at
factors 16 and 32 alike, from worse starts; this is the least that chooses so.
"""

_NEGLIGIBLE = 0.01
"""Without a limit on bytes, rounding may add this fraction to the squared error, not more."""


@dataclass(frozen=True)
class Course:
    """A weight with a course to choose for: its assignment and the layouts that stand for choice.

    `noise_weight` is what rounding counts beside truncation.
    """

    assignment: Assignment
    layouts: tuple[Layout, ...]
    noise_weight: float = ROUNDING_WEIGHT

    @property
    def name(self) -> str:
        """The weight's name."""
        return self.assignment.weight.name

    @property
    def explicit_ranks(self) -> tuple[int, ...] | None:
        """Ranks the recipe fixes, lowered to the attainable ones."""
        ranks = self.assignment.ranks
        return self.layouts[0].attainable(ranks) if isinstance(ranks, tuple) else None

    @property
    def cuts(self) -> tuple[Cut, ...]:
        """The unfoldings whose spectra the choice needs; none where nothing is to be chosen."""
        if self.explicit_ranks is not None and self.assignment.store != AUTO:
            return ()
        whole = (self.assignment.weight.shape[0], 1)  # dense weights need the energy alone
        found = [cut for layout in self.layouts for cut in layout.cuts] or [whole]
        return tuple(dict.fromkeys(found))


def course(assignment: Assignment, recipe: Recipe) -> Course:
    """The layouts that a recipe leaves open for one weight, and what rounding counts there."""
    weight, layouts = assignment.weight, list[Layout]()
    for one in formats_named(assignment.format):
        if assignment.row_modes and assignment.column_modes:
            layouts.append(one(assignment.row_modes, assignment.column_modes))
        else:
            layouts += one.candidates(weight.shape, weight.gates)
    weight_of_noise = ROUNDING_WEIGHT if recipe.calibration is None else WEIGHTED_ROUNDING_WEIGHT
    if recipe.finetune is not None:
        weight_of_noise *= TUNED_ROUNDING
    return Course(assignment, tuple(layouts), weight_of_noise)


def menu(course: Course, spectra: Spectra, budget: Budget, byte_limited: bool) -> Menu:
    """Every option of one weight; empty where the tolerance cannot be met."""
    stores = _stores(course.assignment.store, byte_limited, budget)
    options = (
        _option(course, layout, store, spectra, budget)
        for layout in course.layouts
        for store in stores
    )
    within = filter(None, (_tolerant(course, option, budget.tolerance) for option in options))
    return tuple(replace(option, noise_weight=course.noise_weight) for option in within)


def finest_needed(option: Option, ranks: Sequence[int]) -> Store:
    """The smallest store whose rounding is negligible beside the truncation at these ranks."""
    *coarser, finest = auto_stores()
    allowed = (1 + _NEGLIGIBLE) * replace(option, store=finest).error(ranks)
    fine = (store for store in coarser if replace(option, store=store).error(ranks) <= allowed)
    return next(fine, finest)


def _stores(name: str, byte_limited: bool, budget: Budget) -> tuple[Store, ...]:
    if name != AUTO:
        return (STORES[name],)
    if byte_limited and budget.tolerance != 0:
        return auto_stores()
    return auto_stores()[-1:]


def _option(
    course: Course, layout: Layout, store: Store, spectra: Spectra, budget: Budget
) -> Option:
    weight = course.assignment.weight
    energy = next(iter(spectra.values())).energy if spectra else 0.0
    base = Option(layout, store, energy, lookup=weight.looked_up)
    if not layout.decomposes:
        return replace(base, rounding_share=_rounding_share(spectra))
    explicit = course.explicit_ranks
    if explicit is not None:
        known = tuple(spectra[cut] for cut in layout.cuts) if spectra else ()
        return replace(base, spectra=known, floors=explicit, caps=explicit)
    caps = layout.full_ranks
    for cap in (course.assignment.ranks, budget.rank):
        if isinstance(cap, int):
            caps = layout.attainable([min(cap, full) for full in caps])
    floors = caps if budget.tolerance == 0 else (1,) * len(caps)
    return replace(
        base, spectra=tuple(spectra[cut] for cut in layout.cuts), floors=floors, caps=caps
    )


def _rounding_share(spectra: Spectra) -> float:
    """What rounding the matrix itself costs beside rounding noise on its energy."""
    for spectrum in spectra.values():
        if spectrum.rounding is not None and spectrum.energy:
            return spectrum.rounding / spectrum.energy
    return 1.0


def _tolerant(course: Course, option: Option, tolerance: float | None) -> Option | None:
    """Raise the floors so that the tolerance is met, at the least bytes; None if it cannot be.

    Ranks that the recipe fixes are obeyed whatever they lose.
    """
    if not tolerance or course.explicit_ranks is not None:
        return option
    allowed = tolerance**2 * option.energy
    if option.error(option.caps) > allowed:
        return None
    low, high, floors = 1e-18 * option.energy, option.energy, option.caps
    for _ in range(60):
        middle = (low * high) ** 0.5
        ranks = option.descend(Cost(bytes=middle), option.caps)
        if option.error(ranks) <= allowed:
            low, floors = middle, ranks
        else:
            high = middle
    return replace(option, floors=floors)


def cuts_needed(courses: Sequence[Course]) -> Mapping[str, tuple[Cut, ...]]:
    """For each weight by name, the unfoldings whose spectra a plan needs."""
    return {course.name: course.cuts for course in courses if course.cuts}
