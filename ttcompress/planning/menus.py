"""Lists the options that allocation chooses from, for each weight, from what a recipe assigns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ttcompress.planning.allocation import Menu
from ttcompress.planning.candidates import Cost, Option
from ttcompress.planning.coded import CodedOption
from ttcompress.planning.flash import Bits, bits_for, bits_of
from ttcompress.planning.formats import AUTO as AUTO_FORMAT
from ttcompress.planning.formats import Layout, formats_named
from ttcompress.planning.spectrum import Cut, Spectra
from ttcompress.recipe import Assignment, Budget, Recipe
from ttcompress.stores import AUTO, STORES, Store, auto_stores
from ttcompress.stores.coded import CODED, Coded

ROUNDING_WEIGHT = 3.0
"""Weight of rounding error against truncation error when bits and ranks are chosen together.

Rounding spreads its error over all directions; truncation gives up those that the weights, and
usually the inputs, use least. Of 1, 1.5, 2 and 3, the last was best or within 0.2 % of the best in
the metrics of both sample models, at factors 8, 16 and 32, in mps and auto.
"""

KNOWN_TRUNCATION_WEIGHT = 4.0
"""Weight of truncation error where calibration weights errors by inputs that were all measured: it
then counts what inputs use, and later values make up for the rounding of earlier ones. Of 6, 3 and
1.5 on the sample models, at factors 8, 16 and 32, mps was best at 6 and auto at 3. The rounding
error of every weight counts alike, since it has no favourite direction: so weights whose inputs are
known, guessed or known in part share one budget.
"""

TUNED_ROUNDING = 4.0
"""Multiplies the weight if fine-tuning follows: training recovers truncation better than rounding.

For `charlm` as mps with one number of bits everywhere, 3 epochs reached lower losses with 5 and 6
bits than with 3, 4 and 8, at factors 16 and 32 and from worse starts; this is the smallest value
that makes this choice.
"""

HELD_BY: Mapping[str, tuple[str, ...]] = {
    "onnx": ("int4", "int8", "float16", "float32"),
    "c": ("int8",),
}
"""The stores that `auto` chooses from for a target. ONNX holds these in as many bytes as a file
does, and unpacks all others; C rounds all weights to the same bits, see `flash.bits_of`.
"""

Unfit = Mapping[str, float]
"""Stores by name that are too coarse for one weight kept dense, each with what its worst row would
lose, relative to the row's norm. Where a store is unfit, so are all coarser ones.
"""

_NEGLIGIBLE = 0.01
"""Without a limit on bytes, rounding may add at most this fraction to the squared error."""


@dataclass(frozen=True)
class OpenWeight:
    """A weight whose layout, ranks or store are to be chosen: its assignment and layouts to try.

    `noise_weight` is the weight of rounding error against truncation error. `unfit` are the stores
    that a dense form must not have. `unit_cost` is what a unit of squared error costs, compared
    with the other weights: see `unit_costs`. `truncation_weight` is that of truncation error; None:
    by how much of the inputs is known, see `KNOWN_TRUNCATION_WEIGHT`. `target` is what will hold
    the weight, and `held` the bits of a value in its flash.
    """

    assignment: Assignment
    layouts: tuple[Layout, ...]
    noise_weight: float = ROUNDING_WEIGHT
    unfit: Unfit = field(default_factory=dict)
    unit_cost: float = 1.0
    truncation_weight: float | None = None
    target: str = "file"
    held: Bits | None = None

    @property
    def name(self) -> str:
        """The weight's name."""
        return self.assignment.weight.name

    @property
    def offered(self) -> tuple[Store, ...]:
        """The stores of fixed bits that `auto` chooses from: those that the target holds."""
        held = HELD_BY.get(self.target)
        return tuple(store for store in auto_stores() if held is None or store.name in held)

    @property
    def explicit_ranks(self) -> tuple[int, ...] | None:
        """The ranks that the recipe fixes, lowered to the attainable ones."""
        ranks = self.assignment.ranks
        return self.layouts[0].attainable(ranks) if isinstance(ranks, tuple) else None

    @property
    def cuts(self) -> tuple[Cut, ...]:
        """The unfoldings whose spectra the choice needs; none if nothing is left to choose."""
        store = self.assignment.store
        if self.explicit_ranks is not None and store not in (AUTO, CODED.name):
            return ()
        whole = (self.assignment.weight.shape[0], 1)  # dense weights need the energy alone
        found = [cut for layout in self.layouts for cut in layout.cuts] or [whole]
        return tuple(dict.fromkeys(found))


def find_layouts(assignment: Assignment, recipe: Recipe, unfit: Unfit | None = None) -> OpenWeight:
    """Find the layouts that a recipe leaves open for one weight."""
    weight, layouts = assignment.weight, list[Layout]()
    for one in _allowed_formats(assignment, recipe):
        if assignment.row_modes and assignment.column_modes:
            layouts.append(one(assignment.row_modes, assignment.column_modes))
        else:
            layouts += one.candidates(weight.shape, weight.gates)
    held = None
    if recipe.target == "c":
        held = bits_for(weight, bits_of(recipe.store))
        layouts = list(filter(_is_run_by_c, layouts)) or layouts
    tuned = 1.0 if recipe.finetune is None else TUNED_ROUNDING
    return OpenWeight(
        assignment,
        tuple(layouts),
        tuned * ROUNDING_WEIGHT,
        unfit or {},
        target=recipe.target,
        held=held,
    )


def _is_run_by_c(layout: Layout) -> bool:
    """Whether C multiplies by just what the layout stores: other trains become two factors there,
    or the matrix.
    """
    return _is_two_factors(layout) or not layout.decomposes


def _allowed_formats(assignment: Assignment, recipe: Recipe) -> Sequence[type[Layout]]:
    """The formats to try; with a cap on ranks, `auto` means mps.

    The cap is on the rank of the matrix. A whole matrix would ignore it, and the ranks of an MPO
    are something else: it would win by being larger.
    """
    capped = recipe.budget.rank is not None or assignment.ranks is not None
    return formats_named(
        "mps" if capped and assignment.format == AUTO_FORMAT else assignment.format
    )


def list_options(
    open_weight: OpenWeight, spectra: Spectra, budget: Budget, byte_limited: bool
) -> Menu:
    """List every option of one weight; empty if the tolerance cannot be met."""
    stores = _stores(open_weight, byte_limited, budget)
    options = (
        _option(open_weight, layout, store, spectra, budget)
        for layout in open_weight.layouts
        for store in (stores if layout.decomposes else fit_stores(stores, open_weight.unfit))
        if _is_offered(open_weight, layout, store)
    )
    within = filter(
        None, (_raise_floors(open_weight, option, budget.tolerance) for option in options)
    )
    known = next(iter(spectra.values())).known if spectra else 0.0
    return tuple(_weigh(option, open_weight, known) for option in within)


def _weigh(option: Option, open_weight: OpenWeight, known: float) -> Option:
    """Weigh rounding against truncation, and the errors of this weight against those of others.

    Entropy-coded, both count alike where the inputs are known, and where rows are looked up.
    """
    noise, truncation = open_weight.noise_weight, open_weight.truncation_weight
    if isinstance(option, CodedOption):
        noise = noise ** (1 - known) if truncation is None else 1.0
        truncation = 1.0
    elif truncation is None:
        truncation = KNOWN_TRUNCATION_WEIGHT**known
    cost = open_weight.unit_cost
    return replace(option, truncation_weight=cost * truncation, noise_weight=cost * noise)


def _is_offered(open_weight: OpenWeight, layout: Layout, store: Store) -> bool:
    """Whether a layout is worth trying in a store.

    Entropy-coded, a train of two factors is the only one whose errors and rates are sums over
    components; wherever it was possible, no other train won.
    """
    if not isinstance(store, Coded) or not layout.decomposes or _is_two_factors(layout):
        return True
    return not any(map(_is_two_factors, open_weight.layouts))


def _is_two_factors(layout: Layout) -> bool:
    return layout.cores == 2 and layout.middle is not None


def fit_stores(stores: Sequence[Store], unfit: Unfit) -> tuple[Store, ...]:
    """Those of the stores that are fit for a dense weight; if none is, the next finer one."""
    if fit := tuple(store for store in stores if store.name not in unfit):
        return fit
    *coarser, finest = sorted(STORES.values(), key=lambda store: -store.noise)
    return (next((store for store in coarser if store.name not in unfit), finest),)


def too_coarse(store: Store, worst_row_error: float) -> Unfit:
    """The unfit stores, if a dense weight in this store has a row that loses this much."""
    return {one.name: worst_row_error for one in STORES.values() if one.noise >= store.noise}


def with_least_bits(option: Option, ranks: Sequence[int], stores: Sequence[Store]) -> Option:
    """In the smallest store whose rounding is negligible against the truncation at these ranks."""
    if isinstance(option, CodedOption):
        return option.coarsened(ranks, (1 + _NEGLIGIBLE) * option.truncation(ranks))
    options = [replace(option, store=store) for store in stores]
    allowed = (1 + _NEGLIGIBLE) * options[-1].error(ranks)
    return next((one for one in options if one.error(ranks) <= allowed), options[-1])


def _stores(open_weight: OpenWeight, byte_limited: bool, budget: Budget) -> tuple[Store, ...]:
    """The stores to try: the one that the recipe says, or what `auto` means under the budget."""
    if (name := open_weight.assignment.store) != AUTO:
        return (STORES[name],)
    offered = open_weight.offered
    if not byte_limited or budget.tolerance == 0:
        return (offered[-1],)
    if open_weight.target not in HELD_BY and budget.tolerance is None:
        return (CODED,)
    return offered


def _option(
    open_weight: OpenWeight, layout: Layout, store: Store, spectra: Spectra, budget: Budget
) -> Option:
    weight = open_weight.assignment.weight
    energy = next(iter(spectra.values())).energy if spectra else 0.0
    kind = CodedOption if isinstance(store, Coded) else Option
    base = kind(
        layout,
        store,
        energy,
        lookup=weight.looked_up,
        held=open_weight.held,
        gates=weight.gates,
    )
    if not layout.decomposes:
        return replace(base, rounding_share=_rounding_share(spectra))
    explicit = open_weight.explicit_ranks
    if explicit is not None:
        known = tuple(spectra[cut] for cut in layout.cuts) if spectra else ()
        return replace(base, spectra=known, floors=explicit, caps=explicit)
    caps = layout.full_ranks
    for cap in (open_weight.assignment.ranks, budget.rank):
        if isinstance(cap, int):
            caps = layout.attainable([min(cap, full) for full in caps])
    floors = caps if budget.tolerance == 0 else (1,) * len(caps)
    return replace(
        base, spectra=tuple(spectra[cut] for cut in layout.cuts), floors=floors, caps=caps
    )


def _rounding_share(spectra: Spectra) -> float:
    """The squared norm that rounding the matrix itself applies to, divided by its energy."""
    for spectrum in spectra.values():
        if spectrum.rounding is not None and spectrum.energy:
            return spectrum.rounding / spectrum.energy
    return 1.0


def _raise_floors(
    open_weight: OpenWeight, option: Option, tolerance: float | None
) -> Option | None:
    """Raise the floors to the fewest bytes that meet the tolerance; None if it cannot be met.

    Ranks that the recipe fixes are kept, whatever they lose. The price of a byte is bisected, as in
    `allocation`.
    """
    if tolerance is None:
        return option
    best, floors = option.at_price(Cost()), option.caps
    if tolerance == 0:
        return best.at_least(floors)
    if open_weight.explicit_ranks is not None:
        if not isinstance(best, CodedOption):
            return option
        return with_least_bits(best, floors, open_weight.offered).at_least(floors)
    allowed = tolerance**2 * option.energy
    low, high = 1e-18 * option.energy, option.energy
    if best.error(floors) > allowed:
        return None
    for _ in range(60):
        prices = Cost(bytes=(low * high) ** 0.5)
        taken = option.at_price(prices)
        ranks = taken.descend(prices, option.caps)
        if taken.error(ranks) <= allowed:
            low, best, floors = prices.bytes, taken, ranks
        else:
            high = prices.bytes
    return best.at_least(floors)


def cuts_needed(open_weights: Sequence[OpenWeight]) -> Mapping[str, tuple[Cut, ...]]:
    """The unfoldings whose spectra a plan needs, by the name of the weight."""
    return {open_weight.name: open_weight.cuts for open_weight in open_weights if open_weight.cuts}
