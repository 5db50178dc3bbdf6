"""Budgets of the whole file: errors of embedding, recurrent and linear weights in one currency."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.planning.test_planner import BIAS, spectra_of
from ttcompress.errors import PlanError
from ttcompress.model.weights import ROLES, Weight
from ttcompress.planning.allocation import Allowance, allocate, allocate_around_largest, total_cost
from ttcompress.planning.candidates import Option
from ttcompress.planning.currency import SHARES, Energy, unit_costs
from ttcompress.planning.formats import DenseLayout
from ttcompress.planning.plan import Plan
from ttcompress.planning.planner import ESTIMATED, make_plan
from ttcompress.planning.spectrum import Spectrum
from ttcompress.recipe import recipe_from
from ttcompress.stores import auto_stores

EMBEDDING = Weight("e.weight", ("e.weight",), "embedding", (400, 16), "float32")
RECURRENT = tuple(
    Weight(name, (name,), "recurrent", (64, 16), "float32", 4)
    for name in ("lstm.weight_ih_l0", "lstm.weight_hh_l0")
)
WEIGHTS = (EMBEDDING, *RECURRENT)
BYTES = sum(weight.bytes for weight in WEIGHTS) + BIAS.bytes


def plan_of(
    budget: Mapping[str, float],
    scale: float = 1.0,
    costs: Mapping[str, float] | None = None,
    store: str = "auto",
    train_format: str = "auto",
) -> Plan:
    """The plan of a model whose embedding has values that many times larger."""
    recipe = recipe_from(
        {
            "version": 1,
            "format": "auto",
            "budget": budget,
            "rules": [
                {"weights": "recurrent"},
                {"weights": "embedding", "store": store, "format": train_format},
            ],
            "default": "keep",
        }
    )
    spectra = spectra_of(recipe, WEIGHTS, fall=0.1)
    larger = {
        cut: Spectrum(tuple(scale * value for value in one.values))
        for cut, one in spectra.get(EMBEDDING.name, {}).items()
    }
    spectra = spectra | ({EMBEDDING.name: larger} if larger else {})
    return make_plan(recipe, WEIGHTS, [BIAS], spectra, costs=costs or {})


def choices_of(plan: Plan) -> list[tuple[object, ...]]:
    return [(p.layout, p.ranks, p.store) for p in plan.weights]


def lost(plan: Plan) -> list[float]:
    return [p.expected_error or 0.0 for p in plan.weights]


@pytest.mark.parametrize("scale", [1 / 50, 10, 200])
def test_the_unit_of_an_embedding_is_no_reason_to_give_it_more(scale: float) -> None:
    """With errors counted as they are, one of the two would lose most of what is lost."""
    plan = plan_of({"size": 5000}, scale)
    shares = [p.bytes for p in plan.weights]
    assert shares == pytest.approx([p.bytes for p in plan_of({"size": 5000}).weights], abs=2)
    assert max(lost(plan)) < 0.35
    one_currency = plan_of({"factor": plan.weights_totals.compression_factor}, scale)
    fair, unfair = (max(lost(one)) / min(lost(one)) for one in (plan, one_currency))
    assert unfair > 1.4 * fair


def test_a_factor_alone_is_shared_as_it_always_was() -> None:
    costs = {EMBEDDING.name: 1e6}
    assert choices_of(plan_of({"factor": 6})) == choices_of(plan_of({"factor": 6}, costs=costs))


def test_what_is_measured_to_cost_more_loses_less() -> None:
    cheap, dear = (
        lost(plan_of({"size": 5000}, costs={w.name: c for w, c in zip(WEIGHTS, cs, strict=True)}))
        for cs in ((1.0, 1.0, 1.0), (1.0, 1.0, 1000.0))
    )
    assert dear[2] < cheap[2] and dear[0] >= cheap[0]


@pytest.mark.parametrize("factor", [5.0])
def test_a_model_factor_counts_every_tensor_of_the_model(factor: float) -> None:
    plan = plan_of({"model_factor": factor})
    assert plan.model_totals.bytes_before == BYTES
    assert factor <= plan.model_totals.compression_factor < 1.1 * factor
    assert plan == plan_of({"size": int(BYTES / factor)})
    tighter = plan_of({"model_factor": factor, "size": 2 * BYTES})
    assert choices_of(tighter) == choices_of(plan)


def test_only_a_share_by_estimates_says_so() -> None:
    assert ESTIMATED in plan_of({"size": 5000}).notes
    assert ESTIMATED not in plan_of({"size": 5000}, costs={EMBEDDING.name: 1.0}).notes
    assert ESTIMATED not in plan_of({"factor": 6}).notes


@pytest.mark.parametrize("budget", [{"size": 6000}, {"model_factor": 6}])
def test_a_file_out_of_reach_names_what_is_largest_and_what_would_shrink_it(
    budget: dict[str, float],
) -> None:
    with pytest.raises(PlanError) as caught:
        plan_of(budget, store="int8", train_format="dense")
    asked = "size 6,000" if "size" in budget else "model_factor 6 (5,674 bytes)"
    lines = str(caught.value).splitlines()
    assert lines[0].startswith(f"{asked} is out of reach: ")
    assert lines[0].endswith("plus its header. The largest are:")
    assert lines[1] == "    e.weight: 6,604 bytes (dense in int8, as the recipe says)"
    assert lines[2] == "    lstm.bias: 256 bytes (kept: not a weight)"
    assert lines[3].startswith("    lstm.weight_ih_l0: ") and "(at its smallest)" in lines[3]
    assert lines[5] == (
        "    Ask for less, or let e.weight share the budget, by a rule before the others: "
        "`- {weights: embedding, format: auto, store: auto}`."
    )
    plan_of(budget)  # the cure is one


energies = st.dictionaries(
    st.sampled_from("abcdef"),
    st.builds(Energy, st.sampled_from(ROLES), st.floats(1e-3, 1e6)),
    min_size=1,
)


@given(energies, st.data())
def test_a_unit_costs_1_in_the_mean(energies: dict[str, Energy], data: st.DataObject) -> None:
    names = data.draw(st.sets(st.sampled_from(sorted(energies))))
    measured = {name: data.draw(st.floats(1e-6, 1e6)) for name in sorted(names)}
    costs = unit_costs(energies, measured)
    total = sum(one.energy for one in energies.values())
    spent = sum(costs[name] * one.energy for name, one in energies.items())
    assert spent == pytest.approx(total)
    for one, other in product(measured, repeat=2):
        assert costs[one] / costs[other] == pytest.approx(measured[one] / measured[other])
    if len({one.role for one in energies.values()}) == 1 and not measured:
        assert list(costs.values()) == pytest.approx([1.0] * len(costs))


def test_roles_share_by_what_they_hold_together() -> None:
    found = {
        "e": Energy("embedding", 1e6),
        "ih": Energy("recurrent", 30.0),
        "hh": Energy("recurrent", 10.0),
        "head": Energy("linear", 5.0),
    }
    costs = unit_costs(found, {})
    assert costs["ih"] == costs["hh"]
    whole = costs["ih"] * 40.0
    assert costs["e"] * 1e6 / whole == pytest.approx(SHARES["embedding"] / SHARES["recurrent"])
    assert costs["head"] * 5.0 / whole == pytest.approx(SHARES["linear"] / SHARES["recurrent"])
    # What was not measured is estimated in the unit of what was.
    costs = unit_costs(found, {"ih": 7.0, "hh": 7.0})
    assert costs["head"] / costs["ih"] == pytest.approx(SHARES["linear"] * 40.0 / 5.0)


def dense_menu(rows: int, energy: float) -> tuple[Option, ...]:
    layout = DenseLayout((rows,), (16,))
    return tuple(Option(layout, store, energy) for store in auto_stores())


@pytest.mark.parametrize(("rows", "share"), [(1000, 0.264), (500, 0.196), (500, 0.227)])
def test_steps_of_a_weight_larger_than_all_others_are_spent_well(rows: int, share: float) -> None:
    """As by trying every combination, where prices alone are far off."""
    menus = [dense_menu(rows, 1.0), dense_menu(40, 1.0), dense_menu(40, 0.5)]
    allowance = Allowance(bytes=share * (rows + 80) * 16 * 4)
    least = min(
        sum(option.error(()) for option in options)
        for options in product(*menus)
        if sum(option.cost(()).bytes for option in options) <= allowance.bytes
    )
    plain, found = allocate(menus, allowance), allocate_around_largest(menus, allowance)
    assert plain is not None and found is not None
    assert allowance.usage(total_cost(found)) <= 1
    assert sum(choice.error for choice in plain) > 1.5 * least
    assert sum(choice.error for choice in found) == pytest.approx(least)
