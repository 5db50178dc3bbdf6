"""Makes the `Plan` of a model: turns a recipe's budget into ranks and bits for every weight.

Ask `cuts_for` which spectra are needed, then give them to `make_plan`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import inf, isfinite, sqrt
from operator import mul

from ttcompress.errors import PlanError
from ttcompress.model.weights import NO_EVIDENCE, UNKNOWN, OtherTensor, Weight
from ttcompress.planning.allocation import (
    Allowance,
    Choice,
    allocate,
    allocate_around_largest,
    choose_smallest,
    total_cost,
)
from ttcompress.planning.candidates import Cost, Option
from ttcompress.planning.coded import CodedOption
from ttcompress.planning.currency import Energy, unit_costs
from ttcompress.planning.formats import FORMATS, KEEP, DenseLayout, decomposing
from ttcompress.planning.menus import (
    ROUNDING_WEIGHT,
    OpenWeight,
    Unfit,
    cuts_needed,
    find_layouts,
    fit_stores,
    list_options,
    with_least_bits,
)
from ttcompress.planning.plan import Plan, PlannedWeight, dense_multiply_adds
from ttcompress.planning.spectrum import Cut, Spectra
from ttcompress.recipe import Assignment, Budget, Recipe, match
from ttcompress.stores import AUTO, STORES, Store

_MOST_NAMED = 5

_ESTIMATED = 0.03
"""How far off the smallest size may be, of which coded bytes and the header are estimates."""

ESTIMATED = (
    "What errors cost in embedding, recurrent and linear weights was estimated by role: "
    "a task or calibration data would measure it."
)

NOTHING_UNFIT: Mapping[str, Unfit] = {}
NO_COSTS: Mapping[str, float] = {}


def cuts_for(recipe: Recipe, weights: Sequence[Weight]) -> Mapping[str, tuple[Cut, ...]]:
    """The unfoldings, by weight, whose spectra `make_plan` needs; empty where shapes are enough.

    Raises:
        PlanError: a rule does not fit the model.
    """
    return cuts_needed([find_layouts(a, recipe) for a in match(recipe, weights) if a.shares_budget])


def make_plan(
    recipe: Recipe,
    weights: Sequence[Weight],
    others: Sequence[OtherTensor] = (),
    spectra: Mapping[str, Spectra] | None = None,
    overhead: int = 0,
    unfit: Mapping[str, Unfit] = NOTHING_UNFIT,
    costs: Mapping[str, float] = NO_COSTS,
    stretch: float = 1.0,
    flash: int = 0,
) -> Plan:
    """Decide format, modes, ranks and store of every weight.

    `spectra` holds, by weight, what `cuts_for` asked for. `overhead` is the size of the output
    file's header in bytes, which counts towards a budget of the whole file; 0 if it is not known
    yet. `unfit` holds, by weight, the stores in which a row of its dense form would be lost: it
    gets a finer one, or is kept. `costs` are those of a unit of squared error, as far as they were
    measured; only a budget of the whole file asks for them. `stretch` multiplies the bytes that are
    allowed: estimates of what is coded may be wrong by a few percent, and are corrected by it.
    `flash` is what else a device will hold in its flash, in bytes: tables, biases, the head.

    Raises:
        PlanError: a rule does not fit the model, nothing is left to decompose, or the budget is
            out of reach.
    """
    assignments = match(recipe, weights)
    _check_something_to_do(recipe, assignments)
    known = spectra or {}
    open_weights = [
        find_layouts(a, recipe, unfit.get(a.weight.name)) for a in assignments if a.shares_budget
    ]
    settled = {
        a.weight.name: _plan_outside_budget(a, unfit.get(a.weight.name, {}))
        for a in assignments
        if not a.shares_budget
    }
    before = sum(w.bytes for w in weights) + sum(o.bytes for o in others)
    budget = replace(recipe.budget, size=recipe.budget.largest_file(before))
    remarks: tuple[str, ...] = ()
    if budget.size is not None:
        if len({one.assignment.weight.role for one in open_weights}) > 1 and not costs:
            remarks = (ESTIMATED,)
        open_weights = _put_in_currency(open_weights, known, costs)
    fixed_bytes = overhead + sum(p.bytes for p in settled.values()) + sum(o.bytes for o in others)
    fixed = Cost(bytes=fixed_bytes, flash=flash)
    while True:
        beside: list[PlannedWeight | OtherTensor] = [*settled.values(), *others]
        planned = _share_budget(open_weights, budget, known, fixed, overhead, stretch, beside)
        grown = {
            p.weight.name
            for p in planned
            if _has_grown(p, budget) or _is_unfit(p, unfit.get(p.weight.name, {}))
        }
        if not grown:
            break
        for p in planned:
            if p.weight.name in grown:
                settled[p.weight.name] = _keep(p, unfit.get(p.weight.name, {}))
                fixed += Cost(bytes=p.weight.bytes)
        open_weights = [one for one in open_weights if one.name not in grown]
    chosen = settled | {p.weight.name: p for p in planned}
    notes = _note_quantisation(open_weights, planned, budget, known, fixed)
    of_all = tuple(chosen[w.name] for w in weights)
    limit = _make_allowance(open_weights, budget, fixed).bytes
    return Plan(of_all, tuple(others), bool(known), (*remarks, *notes), limit)


def _put_in_currency(
    open_weights: Sequence[OpenWeight], spectra: Mapping[str, Spectra], costs: Mapping[str, float]
) -> list[OpenWeight]:
    """Make the errors of weights of different roles comparable.

    Where rows are looked up, truncation counts as much as rounding: no row has a direction that
    inputs use least. On an embedding of 20,000 words it cost the outputs 1.3 times as much.
    """
    energies = {
        one.name: Energy(one.assignment.weight.role, next(iter(known.values())).energy)
        for one in open_weights
        if (known := spectra.get(one.name))
    }
    found = unit_costs(energies, costs)
    return [
        replace(
            one,
            unit_cost=found.get(one.name, 1.0),
            truncation_weight=ROUNDING_WEIGHT if one.assignment.weight.looked_up else None,
        )
        for one in open_weights
    ]


def _check_something_to_do(recipe: Recipe, assignments: Sequence[Assignment]) -> None:
    """Refuse a recipe that changes no weight, or a budget that no weight shares."""
    changes = any(a.format != KEEP for a in assignments)
    if any(a.shares_budget for a in assignments) or (changes and recipe.budget == Budget()):
        return
    largest = sorted(assignments, key=lambda a: -a.weight.bytes)[:_MOST_NAMED]
    named = "".join(
        f"\n    {a.weight.name} ({a.weight.role}, {a.weight.shape[0]} x {a.weight.shape[1]})"
        for a in largest
    )
    role = largest[0].weight.role if largest else "all"
    selector = largest[0].weight.name if role == UNKNOWN else role
    recurrent = any(a.weight.role == "recurrent" for a in assignments)
    fact = "" if recurrent else "the model has no recurrent layer, and "
    raise PlanError(
        f"{fact}the recipe leaves no weight to decompose. The largest of the model are:{named}"
        "\n    Put a rule that selects them before the others,"
        f" for example `- weights: {selector}`."
    )


def _plan_outside_budget(assignment: Assignment, unfit: Unfit) -> PlannedWeight:
    weight = assignment.weight
    if assignment.format != KEEP:
        (layout,) = FORMATS[assignment.format].candidates(weight.shape)
        (store,) = fit_stores((STORES[assignment.store],), unfit)
        planned = PlannedWeight(weight, layout, store=store, notes=_note_unfit(store, unfit))
        lost = bool(unfit) and (store.name in unfit or planned.bytes >= weight.bytes)
        return _keep(planned, unfit) if lost else planned
    kept_by_rule = assignment.rule is not None
    why = f"rules[{assignment.index}] keeps it" if kept_by_rule else "no rule matches it"
    if not kept_by_rule and weight.role == UNKNOWN:
        why = NO_EVIDENCE
    return PlannedWeight(weight, why=why)


def _share_budget(
    open_weights: Sequence[OpenWeight],
    budget: Budget,
    spectra: Mapping[str, Spectra],
    fixed: Cost,
    overhead: int,
    stretch: float,
    beside: Sequence[PlannedWeight | OtherTensor],
) -> list[PlannedWeight]:
    """Allocate the budget over the weights that share it; `beside` are all other tensors."""
    if not open_weights:
        return []
    allowance = _make_allowance(open_weights, budget, fixed)
    allowance = replace(allowance, bytes=allowance.bytes * stretch)
    byte_limited = allowance.bytes < inf or budget.tolerance is not None
    menus = [
        list_options(one, spectra.get(one.name, {}), budget, byte_limited) for one in open_weights
    ]
    for one, options in zip(open_weights, menus, strict=True):
        if not options:
            raise PlanError(_out_of_tolerance(one, budget))
    # Under a tolerance alone the file is to be as small as possible: any price of bytes does that.
    alone = budget.tolerance is not None and not allowance.limit_count
    share = allocate if budget.size is None else allocate_around_largest
    choices = choose_smallest(menus, Allowance(bytes=1.0)) if alone else share(menus, allowance)
    if choices is None:
        smallest = choose_smallest(menus, allowance)
        least = total_cost(smallest)
        least = replace(least, bytes=least.bytes / stretch)  # as what is coded was seen to take
        fact = _out_of_reach(open_weights, budget, least, fixed, overhead)
        beside = () if budget.size is None else beside  # what a factor does not count
        raise PlanError(f"{fact}. {_name_largest(open_weights, smallest, beside)}")
    if not byte_limited or allowance.limit_count > 1:
        choices = tuple(
            _with_least_bits(one, choice) for one, choice in zip(open_weights, choices, strict=True)
        )
    return [_plan_weight(one, choice) for one, choice in zip(open_weights, choices, strict=True)]


def _make_allowance(open_weights: Sequence[OpenWeight], budget: Budget, fixed: Cost) -> Allowance:
    """What the weights of the budget may take; a factor counts bytes where they will be held."""
    weights = [one.assignment.weight for one in open_weights]
    in_file, in_flash = [inf], [inf]
    if budget.factor is not None:
        where = in_flash if _in_flash(open_weights) else in_file
        where.append(sum(w.bytes for w in weights) / budget.factor)
    if budget.size is not None:
        in_file.append(max(1, budget.size - fixed.bytes))
    if budget.flash is not None:
        in_flash.append(max(1, budget.flash - fixed.flash))
    work = sum(map(dense_multiply_adds, weights))  # 0 where all are looked up
    return Allowance(
        bytes=min(in_file),
        flash=min(in_flash),
        params=inf if budget.params is None else budget.params,
        multiply_adds=inf if budget.multiply_adds is None else max(1, work / budget.multiply_adds),
    )


def _in_flash(open_weights: Sequence[OpenWeight]) -> bool:
    return any(one.held is not None for one in open_weights)


def _with_least_bits(open_weight: OpenWeight, choice: Choice) -> Choice:
    """If bytes are not the limit, take the fewest bits that cost no accuracy.

    A store of fixed bits that the recipe names stays.
    """
    fixed = open_weight.assignment.store != AUTO and not isinstance(choice.option, CodedOption)
    if fixed or not choice.option.energy:
        return choice
    smaller = Choice(
        with_least_bits(choice.option, choice.ranks, open_weight.offered), choice.ranks
    )
    return smaller if smaller.cost.bytes < choice.cost.bytes else choice


def _plan_weight(open_weight: OpenWeight, choice: Choice) -> PlannedWeight:
    option, weight = choice.option, open_weight.assignment.weight
    asked, notes = open_weight.assignment.ranks, []
    if isinstance(asked, tuple) and asked != choice.ranks:
        notes.append(f"ranks {list(asked)} lowered to the attainable {list(choice.ranks)}")
    if not option.layout.decomposes:
        notes += _note_unfit(option.store, open_weight.unfit)
    return PlannedWeight(
        weight,
        option.layout,
        choice.ranks,
        option.store,
        in_budget=True,
        expected_error=_expected_error(option, choice) if option.energy else None,
        notes=tuple(notes),
        tried=tuple(layout for layout in open_weight.layouts if layout.decomposes),
        explicit=open_weight.explicit_ranks is not None,
        estimated=int(choice.cost.bytes) if isinstance(option, CodedOption) else None,
        flash=option.flash(choice.ranks),
    )


def _expected_error(option: Option, choice: Choice) -> float:
    return sqrt(_expected(choice) / option.energy)


def _expected(choice: Choice) -> float:
    """An upper bound of the squared error to be measured: all errors count with weight 1."""
    return max(0.0, replace(choice.option, noise_weight=1.0).expected_error(choice.ranks))


def _has_grown(planned: PlannedWeight, budget: Budget) -> bool:
    """Whether the program's own choice of ranks made a weight larger.

    Whatever the user fixed is kept: explicit ranks, and the full rank of tolerance 0.
    """
    if planned.explicit or budget.tolerance == 0:
        return False
    return planned.bytes >= planned.weight.bytes


def _is_unfit(planned: PlannedWeight, unfit: Unfit) -> bool:
    """Whether a dense weight has no store in which every row keeps enough."""
    dense = planned.layout is not None and not planned.layout.decomposes
    return dense and planned.store is not None and planned.store.name in unfit


def _keep(planned: PlannedWeight, unfit: Unfit) -> PlannedWeight:
    """Keep a weight that would not become smaller, or would lose a row."""
    before, after = planned.weight.bytes, planned.bytes
    why = f"would grow from {before:,} to {after:,} bytes"
    if after <= before:
        why = f"would stay at {before:,} bytes"
    if planned.layout is not None and not planned.layout.decomposes and unfit:
        why = f"{_lost_row(unfit)}, and no finer store is smaller than the weight"
    return PlannedWeight(planned.weight, why=why)


def _note_unfit(store: Store, unfit: Unfit) -> tuple[str, ...]:
    return (f"stored in {store.name}: {_lost_row(unfit)}",) if unfit else ()


def _lost_row(unfit: Unfit) -> str:
    """What the weight would have lost in the finest of the stores that are too coarse for it."""
    name = min(unfit, key=lambda one: STORES[one].noise)
    lost = f"{unfit[name]:.0%} of its norm" if isfinite(unfit[name]) else "its norm"
    return f"in {name} one of its rows would lose {lost}"


def _note_quantisation(
    open_weights: Sequence[OpenWeight],
    planned: Sequence[PlannedWeight],
    budget: Budget,
    spectra: Mapping[str, Spectra],
    fixed: Cost,
) -> tuple[str, ...]:
    """A note, if every weight dense in few bits would lose less in the same number of bytes.

    Only where the recipe asks for trains: `auto` had the choice, and counts rounding higher than
    truncation (see `ROUNDING_WEIGHT`).
    """
    if not any(one.assignment.format in decomposing() for one in open_weights):
        return ()
    allowance = _make_allowance(open_weights, budget, fixed)
    unknown = any(p.expected_error is None for p in planned)
    if not planned or unknown or allowance.bytes == inf:
        return ()
    free = [
        replace(
            one,
            assignment=replace(one.assignment, store=AUTO, ranks=None),
            layouts=DenseLayout.candidates(one.assignment.weight.shape),
        )
        for one in open_weights
    ]
    menus = [
        list_options(one, spectra[one.name], Budget(factor=budget.factor), True) for one in free
    ]
    choices = allocate(menus, Allowance(bytes=allowance.bytes))
    if choices is None:
        return ()
    costs = [one.unit_cost for one in open_weights]
    scales = [cost * choice.option.energy for cost, choice in zip(costs, choices, strict=True)]
    squares = [(p.expected_error or 0.0) ** 2 for p in planned]
    bits = sqrt(sum(map(mul, costs, map(_expected, choices))) / sum(scales))
    ours = sqrt(sum(map(mul, squares, scales)) / sum(scales))
    if bits >= ours:
        return ()
    return (
        f"Quantisation alone would be more accurate at this size: expected error {bits:.3f}, "
        f"against {ours:.3f} with trains. `--format auto` may choose it; "
        "trains also save multiply-adds.",
    )


def _out_of_tolerance(open_weight: OpenWeight, budget: Budget) -> str:
    return (
        f"{open_weight.name}: tolerance {budget.tolerance} is out of reach with the store "
        f"{open_weight.assignment.store}: even the largest allowed ranks lose more. "
        "Raise the tolerance or the rank cap, or use store: auto."
    )


def _out_of_reach(
    open_weights: Sequence[OpenWeight], budget: Budget, least: Cost, fixed: Cost, overhead: int
) -> str:
    """Name each limit that even the smallest choice breaks, with both numbers."""
    allowance = _make_allowance(open_weights, budget, fixed)
    before = sum(one.assignment.weight.bytes for one in open_weights)
    beyond, facts = "is out of reach: even with the smallest ranks", []
    if least.bytes > allowance.bytes:
        if budget.factor is not None and not _in_flash(open_weights):
            reach = before / least.bytes
            facts.append(f"factor {budget.factor:g} {beyond} and stores the factor is {reach:.1f}")
        if budget.size is not None:
            asked = f"size {budget.size:,}"
            if budget.model_factor is not None:
                asked = f"model_factor {budget.model_factor:g} ({budget.size:,} bytes)"
            reach = (1 + _ESTIMATED) * (fixed.bytes + least.bytes)
            header = "" if overhead else " plus its header"
            facts.append(f"{asked} {beyond} and stores the file takes {reach:,.0f} bytes{header}")
    if least.flash > allowance.flash:
        if budget.factor is not None and before / least.flash < budget.factor:
            reach = before / least.flash
            facts.append(f"factor {budget.factor:g} {beyond} the factor in flash is {reach:.1f}")
        if budget.flash is not None and (reach := fixed.flash + least.flash) > budget.flash:
            rest = f", {fixed.flash:,} of them beside these weights" if fixed.flash else ""
            facts.append(f"flash {budget.flash:,} {beyond} it takes {reach:,} bytes{rest}")
    if least.params > allowance.params:
        facts.append(f"params {allowance.params:,.0f} {beyond} {least.params:,} values are left")
    if least.multiply_adds > allowance.multiply_adds:
        reach = allowance.multiply_adds * (budget.multiply_adds or 1) / least.multiply_adds
        facts.append(f"multiply_adds {budget.multiply_adds:g} {beyond} the factor is {reach:.1f}")
    return "; ".join(facts)


def _name_largest(
    open_weights: Sequence[OpenWeight],
    smallest: Sequence[Choice],
    beside: Sequence[PlannedWeight | OtherTensor],
) -> str:
    """The tensors that take most bytes at the least, why, and what would let them shrink."""
    found: list[tuple[float, str, str, Weight | None]] = [
        (choice.cost.flash or choice.cost.bytes, one.name, "at its smallest", None)
        for one, choice in zip(open_weights, smallest, strict=True)
    ]
    for one in beside:
        if isinstance(one, OtherTensor):
            found.append((one.bytes, one.name, f"kept: {one.why}", None))
        elif one.store is None:
            found.append((one.bytes, one.weight.name, f"kept: {one.why}", one.weight))
        else:
            how = f"{one.format} in {one.store.name}, as the recipe says"
            found.append((one.bytes, one.weight.name, how, one.weight))
    found.sort(key=lambda entry: -entry[0])
    named = "".join(
        f"\n    {n}: {size:,.0f} bytes ({how})" for size, n, how, _ in found[:_MOST_NAMED]
    )
    cure = "Ask for less, decompose more weights, or use store: auto."
    if fixed := next((weight for *_, weight in found[:_MOST_NAMED] if weight is not None), None):
        selector = fixed.name if fixed.role == UNKNOWN else fixed.role
        cure = (
            f"Ask for less, or let {fixed.name} share the budget, by a rule before the others: "
            f"`- {{weights: {selector}, format: auto, store: auto}}`."
        )
    return f"The largest are:{named}\n    {cure}"
