"""Plans: budgets met and used up, fixed things obeyed, refusals with both numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from math import inf, prod, sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttcompress.errors import PlanError
from ttcompress.model.weights import OtherTensor, Weight
from ttcompress.planning.candidates import Option
from ttcompress.planning.coded import CodedOption
from ttcompress.planning.menus import ROUNDING_WEIGHT
from ttcompress.planning.plan import Plan, PlannedWeight
from ttcompress.planning.planner import cuts_for, make_plan
from ttcompress.planning.spectrum import Cut, Spectra, Spectrum
from ttcompress.recipe import Recipe, recipe_from
from ttcompress.stores import STORES
from ttcompress.stores.coded import Coded

SHAPES = ((64, 12), (64, 16), (64, 16))
BIAS = OtherTensor("lstm.bias", ("lstm.bias",), (64,), "float32", 256)


def weights_of(shapes: tuple[tuple[int, int], ...], dtype: str = "float32") -> tuple[Weight, ...]:
    names = [f"lstm.weight_{k}" for k in range(len(shapes))]
    return tuple(
        Weight(name, (name,), "recurrent", shape, dtype, 4)
        for name, shape in zip(names, shapes, strict=True)
    )


@cache
def matrix_of(shape: tuple[int, int], seed: int, fall: float) -> np.ndarray:
    """A random matrix whose singular values fall as index ** -fall."""
    u, _, vt = np.linalg.svd(np.random.default_rng(seed).normal(size=shape), full_matrices=False)
    return (u * (1.0 + np.arange(min(shape))) ** -fall) @ vt


@cache
def spectrum_of(shape: tuple[int, int], seed: int, fall: float, cut: Cut) -> Spectrum:
    """By numpy's SVD of the unfolding."""
    (rows, columns), (row, column) = shape, cut
    split = matrix_of(shape, seed, fall).reshape(row, rows // row, column, columns // column)
    unfolded = split.transpose(0, 2, 1, 3).reshape(row * column, -1)
    return Spectrum(tuple(np.linalg.svd(unfolded, compute_uv=False).tolist()))


def spectra_of(
    recipe: Recipe, weights: tuple[Weight, ...], seed: int = 0, fall: float = 0.5
) -> dict[str, Spectra]:
    """What `cuts_for` asks for."""
    wanted = cuts_for(recipe, weights)
    return {
        w.name: {cut: spectrum_of(w.shape, seed + k, fall, cut) for cut in wanted[w.name]}
        for k, w in enumerate(weights)
        if w.name in wanted
    }


def plan_of(
    budget: Mapping[str, Any] | None = None,
    *,
    shapes: tuple[tuple[int, int], ...] = SHAPES,
    seed: int = 0,
    fall: float = 0.5,
    overhead: int = 0,
    **keys: Any,
) -> Plan:
    recipe = recipe_from({"version": 1} | ({"budget": budget} if budget else {}) | keys)
    weights = weights_of(shapes)
    return make_plan(recipe, weights, [BIAS], spectra_of(recipe, weights, seed, fall), overhead)


def expected_error(plan: Plan, seed: int = 0, fall: float = 0.5) -> float:
    """Root of the expected squared error of all weights, each weighted by its energy."""
    squares = 0.0
    for k, planned in enumerate(plan.weights):
        energy = float(np.square(matrix_of(planned.weight.shape, seed + k, fall)).sum())
        squares += (planned.expected_error or 0.0) ** 2 * energy
    return sqrt(squares)


def counted_error(plan: Plan, fall: float) -> float:
    """What the allocation minimises: as `expected_error`, but rounding counts `ROUNDING_WEIGHT`."""
    squares = 0.0
    for k, planned in enumerate(plan.weights):
        shape = planned.weight.shape
        energy = float(np.square(matrix_of(shape, k, fall)).sum())
        assert planned.store is not None and planned.layout is not None
        kind = CodedOption if isinstance(planned.store, Coded) else Option
        spectra = tuple(spectrum_of(shape, k, fall, cut) for cut in planned.layout.cuts)
        option = kind(planned.layout, planned.store, energy, spectra, noise_weight=ROUNDING_WEIGHT)
        squares += option.error(planned.ranks)
    return sqrt(squares)


def larger_by_one_rank(planned: PlannedWeight) -> list[PlannedWeight]:
    """The same weight with each rank raised alone, where it can be."""
    if planned.layout is None:
        return []
    raised = [
        tuple(rank + (i == k) for i, rank in enumerate(planned.ranks))
        for k in range(len(planned.ranks))
    ]
    fitting = [ranks for ranks in raised if planned.layout.attainable(ranks) == ranks]
    return [replace(planned, ranks=ranks) for ranks in fitting]


@settings(max_examples=30, deadline=None)
@given(
    budget=st.fixed_dictionaries(
        {},
        optional={
            "factor": st.floats(2, 14),
            "multiply_adds": st.floats(1, 3),
            "params": st.integers(600, 3000),
            "size": st.integers(2500, 8000),
            "rank": st.integers(2, 16),
        },
    ).filter(bool),
    train_format=st.sampled_from(["mps", "mpo", "auto"]),
    store=st.sampled_from(["auto", "int8", "int4", "float16"]),
    seed=st.integers(0, 9),
    fall=st.sampled_from([0.0, 0.5, 1.5]),
)
def test_no_budget_is_ever_broken(
    budget: dict[str, Any], train_format: str, store: str, seed: int, fall: float
) -> None:
    keys = {"format": train_format, "store": store}
    try:
        plan = plan_of(budget, seed=seed, fall=fall, overhead=500, **keys)
    except PlanError as error:
        assert "out of reach" in str(error)
        return
    totals = plan.weights_totals
    assert totals.compression_factor >= budget.get("factor", 0)
    assert totals.multiply_adds_after * budget.get("multiply_adds", 0) <= sum(map(prod, SHAPES))
    assert totals.params_after <= budget.get("params", inf)
    assert plan.model_totals.bytes_after + 500 <= budget.get("size", inf)
    assert all(rank <= budget.get("rank", inf) for p in plan.weights for rank in p.ranks)


@pytest.mark.parametrize("train_format", ["mps", "mpo", "auto"])
@pytest.mark.parametrize("fall", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("factor", [4, 8, 16])
def test_a_factor_is_used_up(train_format: str, fall: float, factor: float) -> None:
    shapes = ((128, 48), (128, 32), (128, 32))
    plan = plan_of({"factor": factor}, shapes=shapes, fall=fall, format=train_format)
    totals = plan.weights_totals
    left = totals.bytes_before / factor - totals.bytes_after
    smallest_step = min(
        (more.bytes - p.bytes for p in plan.weights for more in larger_by_one_rank(p)),
        default=inf,  # no rank can be raised: a dense weight in few bits is as large as it gets
    )
    assert left >= 0
    assert left < smallest_step or left <= 0.01 * totals.bytes_after


@pytest.mark.parametrize("train_format", ["mps", "mpo", "auto"])
@pytest.mark.parametrize("store", ["auto", "float32", "int8"])
@pytest.mark.parametrize("tolerance", [0.05, 0.2, 0.6])
def test_a_tolerance_is_expected_to_hold_for_every_weight(
    train_format: str, store: str, tolerance: float
) -> None:
    plan = plan_of({"tolerance": tolerance}, format=train_format, store=store)
    errors = [p.expected_error for p in plan.weights if p.format != "keep"]
    assert all(error is not None and error <= tolerance for error in errors)


def test_a_tolerance_costs_no_more_than_it_must() -> None:
    plan = plan_of({"tolerance": 0.3}, store="float16", fall=1.0)
    for k, p in enumerate(plan.weights):
        singular = np.linalg.svd(matrix_of(p.weight.shape, k, 1.0), compute_uv=False)
        energy, tails = float(np.square(singular).sum()), np.square(singular)[::-1].cumsum()[::-1]
        rank = int((tails > 0.09 * energy).sum())  # the truncated SVD is among the layouts
        assert p.bytes <= STORES["float16"].estimate_bytes(rank * p.weight.shape[0]) + STORES[
            "float16"
        ].estimate_bytes(rank * p.weight.shape[1])


def test_a_tolerance_of_0_keeps_the_full_rank_even_where_that_grows() -> None:
    plan = plan_of({"tolerance": 0}, store="float32")
    assert all(p.format == "mps" and p.layout for p in plan.weights)
    assert all(p.layout and p.ranks == p.layout.full_ranks for p in plan.weights)
    assert all(p.bytes > p.weight.bytes for p in plan.weights)


def test_a_rank_cap_alone_is_the_rank() -> None:
    plan = plan_of({"rank": 3}, store="float32")
    for p in plan.weights:
        assert p.layout is not None
        assert p.ranks == p.layout.attainable([3] * len(p.ranks))


@pytest.mark.parametrize(
    ("budget", "fact"),
    [
        ({"factor": 1000}, r"factor 1000 is out of reach: .* stores the factor is \d+\.\d\."),
        ({"size": 300}, r"size 300 is out of reach: .* file takes \d+ bytes plus its header\."),
        ({"params": 10}, r"params 10 is out of reach: .* ranks \d+ values are left\."),
        (
            {"multiply_adds": 500},
            r"multiply_adds 500 is out of reach: .* ranks the factor is \d+\.\d\.",
        ),
    ],
)
def test_a_budget_out_of_reach_says_what_can_be_reached(budget: dict[str, Any], fact: str) -> None:
    with pytest.raises(PlanError, match=fact):
        plan_of(budget)


def test_what_is_said_to_be_reachable_is() -> None:
    with pytest.raises(PlanError) as caught:
        plan_of({"params": 10})
    least = int(str(caught.value).split("ranks ")[1].split(" ")[0].replace(",", ""))
    assert plan_of({"params": least}).weights_totals.params_after == least
    with pytest.raises(PlanError):
        plan_of({"params": least - 1})


def test_a_tolerance_that_a_store_cannot_hold_is_refused() -> None:
    with pytest.raises(
        PlanError, match=r"lstm\.weight_0: tolerance 0\.001 is out of reach with .* store int4"
    ):
        plan_of({"tolerance": 0.001}, store="int4")


@pytest.mark.parametrize("shape", [(64, 1), (1, 64)])
def test_a_tolerance_holds_where_only_one_rank_is_possible(shape: tuple[int, int]) -> None:
    [planned] = plan_of({"tolerance": 0.03}, shapes=(shape,)).weights
    assert planned.store is not None and set(planned.ranks) == {1}
    assert planned.expected_error is not None and planned.expected_error <= 0.03


def test_a_tolerance_that_a_rank_cap_cannot_hold_is_refused() -> None:
    with pytest.raises(PlanError, match=r"tolerance 0\.05 is out of reach .* or the rank cap"):
        plan_of({"tolerance": 0.05, "rank": 1}, fall=0.1)


def test_a_weight_that_would_grow_is_kept_and_says_why() -> None:
    plan = plan_of({"rank": 12}, store="float32", shapes=((64, 12), (64, 64)))
    first, second = plan.weights
    assert (first.format, second.format) == ("keep", "mps")
    assert first.why.startswith("would grow from 3,072 to ")
    assert first.bytes == first.weight.bytes and second.bytes < second.weight.bytes


@pytest.mark.parametrize("budget", [{"multiply_adds": 1}, {"size": 10**8}, {"factor": 1}])
def test_nothing_is_left_to_share_where_every_weight_would_grow(budget: dict[str, Any]) -> None:
    plan = plan_of(budget, shapes=((8, 8),), store="float32", fall=0.0, format="auto")
    assert [p.format for p in plan.weights] == ["keep"]
    assert plan.weights_totals.params_before == 0


def test_multiply_adds_of_weights_that_are_looked_up_cannot_be_reduced() -> None:
    embedding = Weight("e.weight", ("e.weight",), "embedding", (50, 16), "float32")
    recipe = recipe_from(
        {
            "version": 1,
            "budget": {"multiply_adds": 2},
            "rules": [{"weights": "embedding"}],
            "default": "keep",
        }
    )
    with pytest.raises(
        PlanError, match=r"multiply_adds 2 is out of reach: .* the factor is 0\.1\."
    ):
        make_plan(recipe, (embedding,), (), spectra_of(recipe, (embedding,)))


@pytest.mark.parametrize("train_format", ["mps", "mpo"])
def test_no_more_is_expected_to_be_lost_than_there_is(train_format: str) -> None:
    """At rank 1 and a flat spectrum the cuts of a long train discard more than all of it."""
    modes = {"row_modes": [4, 4, 4], "column_modes": [2, 2, 4], "format": train_format}
    rules = [{"weights": "all", "ranks": 1} | modes]
    [planned] = plan_of(
        {"rank": 1}, shapes=((64, 16),), store="float32", fall=0.0, rules=rules, default="keep"
    ).weights
    assert set(planned.ranks) == {1}
    assert planned.expected_error is not None and 0.9 < planned.expected_error <= 1


def test_a_weight_that_would_stay_as_large_says_so() -> None:
    rules = [{"weights": "all", "row_modes": [8], "column_modes": [8], "ranks": 4}]
    plan = plan_of({"params": 64}, shapes=((8, 8),), store="float32", rules=rules, default="keep")
    assert plan.weights[0].why == "would stay at 256 bytes"


def test_an_mpo_of_one_core_is_looked_up_whole() -> None:
    embedding = Weight("e.weight", ("e.weight",), "embedding", (98, 64), "float32")
    rule = {"weights": "embedding", "format": "mpo", "row_modes": [98], "column_modes": [64]}
    keys = {"rules": [rule], "default": "keep", "budget": {"factor": 4}}
    recipe = recipe_from({"version": 1} | keys)
    plan = make_plan(recipe, (embedding,), (), spectra_of(recipe, (embedding,)))
    [planned] = plan.weights
    assert (planned.ranks, planned.multiply_adds) == ((), 64)
    assert planned.bytes <= embedding.bytes / 4


def test_explicit_ranks_are_obeyed_and_flagged_where_they_were_lowered() -> None:
    rule = {"weights": "*_0", "row_modes": [4, 16], "column_modes": [12], "ranks": [99, 99]}
    plan = plan_of(rules=[rule], default="keep", store="float32")
    first = plan.weights[0]
    assert first.explicit and first.ranks == (4, 12)
    assert first.bytes > first.weight.bytes
    assert first.notes == ("ranks [99, 99] lowered to the attainable [4, 12]",)
    assert not plan.from_spectra


def test_explicit_ranks_are_kept_whatever_the_tolerance_says() -> None:
    rule = {"weights": "*_0", "row_modes": [64], "column_modes": [12], "ranks": [2]}
    rules = [rule | {"store": "int8"}, {"weights": "recurrent"}]
    plan = plan_of({"tolerance": 0.05}, rules=rules, default="keep")
    first, *others = plan.weights
    assert first.ranks == (2,) and first.store == STORES["int8"]
    assert all(one.expected_error is not None and one.expected_error <= 0.05 for one in others)


def test_explicit_ranks_come_off_the_budget_first() -> None:
    fixed = {"weights": "*_0", "row_modes": [64], "column_modes": [12], "ranks": [10]}
    rules = [fixed | {"store": "float32"}, {"weights": "recurrent"}]
    with_fixed = plan_of({"factor": 3}, rules=rules, default="keep")
    first = with_fixed.weights[0]
    assert (first.ranks, first.bytes) == ((10,), 4 * 10 * (64 + 12))
    assert with_fixed.weights_totals.compression_factor >= 3
    free = plan_of({"factor": 3})
    others = [sum(p.bytes for p in plan.weights[1:]) for plan in (with_fixed, free)]
    assert others[0] < others[1]


@pytest.mark.parametrize("fall", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize(
    "factor", [pytest.param(3, marks=pytest.mark.slow), 6, pytest.param(10, marks=pytest.mark.slow)]
)
def test_auto_is_never_worse_than_one_format_for_all(fall: float, factor: float) -> None:
    errors = {
        name: counted_error(plan_of({"factor": factor}, fall=fall, format=name), fall)
        for name in ("auto", "mps", "mpo")
    }
    assert errors["auto"] <= 1.001 * min(errors.values())
    dense = plan_of(
        {"factor": factor}, fall=fall, rules=[{"weights": "all", "format": "dense"}], default="keep"
    )
    assert errors["auto"] <= 1.001 * counted_error(dense, fall)


@pytest.mark.parametrize("budget", [{"rank": 3}, {"rank": 3, "factor": 2}])
def test_a_rank_cap_is_not_answered_by_what_has_no_ranks(budget: dict[str, float]) -> None:
    """A whole matrix would ignore the cap, and an MPO of the same ranks is larger."""
    plan = plan_of(budget, format="auto")
    assert {p.format for p in plan.weights} == {"mps"}
    assert all(rank <= 3 for p in plan.weights for rank in p.ranks)
    rules = [{"weights": "all", "ranks": 3}]
    capped = plan_of({"factor": 2}, format="auto", rules=rules, default="keep")
    assert {p.format for p in capped.weights} == {"mps"}


def test_where_the_program_may_quantise_it_is_not_told_to() -> None:
    """It counts rounding higher than truncation, so it may know of a smaller plain error."""
    shapes = ((64, 64), (128, 32), (64, 16))
    for fall, factor in ((0.0, 5), (0.5, 9), (0.7, 8)):
        for cap in ({}, {"rank": 30}):
            plan = plan_of({"factor": factor} | cap, fall=fall, format="auto", shapes=shapes)
            assert plan.notes == ()


def test_few_bits_alone_are_named_where_they_would_lose_less() -> None:
    flat = plan_of({"factor": 5}, fall=0.0)
    assert len(flat.notes) == 1 and flat.notes[0].startswith("Quantisation alone would be more")
    assert plan_of({"factor": 5}, fall=3.0).notes == ()
    assert plan_of({"params": 800}, fall=0.0).notes == ()  # no limit on bytes, nothing to compare


def test_without_a_limit_on_bytes_the_store_takes_no_more_than_accuracy_needs() -> None:
    for p in plan_of({"multiply_adds": 2}, fall=0.5).weights:
        assert p.store is not None and p.store.bits < 16
    exact = plan_of({"multiply_adds": 2}, fall=0.5, store="float32")
    assert expected_error(plan_of({"multiply_adds": 2})) <= 1.006 * expected_error(exact)


def test_a_rule_keeps_a_weight_dense_at_its_store_outside_the_budget() -> None:
    rules = [{"weights": "*_0", "format": "dense", "store": "int8"}, {"weights": "recurrent"}]
    plan = plan_of({"factor": 4}, rules=rules, default="keep")
    first = plan.weights[0]
    assert (first.format, first.in_budget) == ("dense", False)
    assert first.bytes == STORES["int8"].estimate_bytes(64 * 12)
    assert plan.weights_totals.params_before == 2 * 64 * 16


def test_kept_weights_say_which_rule_kept_them() -> None:
    rules = [{"weights": "*_0", "format": "keep"}, {"weights": "*_1"}]
    kept = plan_of({"factor": 4}, rules=rules, default="keep").weights
    assert (kept[0].why, kept[2].why) == ("rules[0] keeps it", "no rule matches it")


def test_totals_add_up() -> None:
    plan = plan_of({"factor": 4}, rules=[{"weights": "*_1"}], default="keep")
    model, shared = plan.model_totals, plan.weights_totals
    assert model.params_before == sum(map(prod, SHAPES)) + BIAS.params
    assert model.bytes_after == sum(p.bytes for p in plan.weights) + BIAS.bytes
    assert shared.bytes_before == plan.weights[1].weight.bytes
    assert shared.params_kept == plan.weights[1].params / (64 * 16)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_bytes_before_are_at_the_source_s_dtype(dtype: str) -> None:
    recipe = recipe_from({"version": 1, "budget": {"factor": 4}})
    weights = weights_of(SHAPES, dtype)
    plan = make_plan(recipe, weights, [], spectra_of(recipe, weights))
    size = 8 if dtype == "float64" else 2
    assert plan.weights_totals.bytes_before == size * sum(map(prod, SHAPES))
    assert plan.weights_totals.compression_factor >= 4


def test_a_looked_up_embedding_costs_no_product_and_a_tied_one_does() -> None:
    recipe = recipe_from(
        {"version": 1, "budget": {"rank": 4}, "rules": [{"weights": "all"}], "default": "keep"}
    )
    alone = Weight("e.weight", ("e.weight",), "embedding", (50, 16), "float32")
    tied = Weight("e.weight", ("e.weight", "d.weight"), "embedding", (50, 16), "float32")
    before = []
    for weight in (alone, tied):
        plan = make_plan(recipe, (weight,), (), spectra_of(recipe, (weight,)))
        before.append(plan.model_totals.multiply_adds_before)
    assert before == [0, 800]


def test_where_a_fine_tuning_follows_bits_are_finer_and_ranks_fewer() -> None:
    plain = plan_of({"factor": 16})
    tuned = plan_of({"factor": 16}, finetune={"epochs": 1})
    steps, tuned_steps = (
        [p.store.step for p in plan.weights if isinstance(p.store, Coded)]
        for plan in (plain, tuned)
    )
    assert len(steps) == len(tuned_steps) == len(SHAPES)
    assert max(tuned_steps) < min(steps)
    assert sum(sum(p.ranks) for p in tuned.weights) < sum(sum(p.ranks) for p in plain.weights)
    assert sum(p.bytes for p in tuned.weights) <= 1.02 * sum(p.bytes for p in plain.weights)


def test_auto_is_coded_where_bytes_are_the_limit() -> None:
    def stores_of(**budget: Any) -> set[str]:
        return {p.store.name for p in plan_of(budget).weights if p.store}

    assert stores_of(factor=8) == stores_of(size=3000) == {"coded"}
    assert stores_of(factor=4, multiply_adds=1.5) == {"coded"}
    assert "coded" not in stores_of(tolerance=0.2) | stores_of(factor=4, tolerance=0.3)
    assert "coded" not in stores_of(multiply_adds=2) | stores_of(rank=4)


@pytest.mark.parametrize(
    "budget",
    [{"tolerance": 0.1}, {"tolerance": 0.3, "factor": 2}, {"rank": 4}, {"params": 900}],
    ids=str,
)
def test_coded_by_name_serves_every_budget(budget: dict[str, float]) -> None:
    for p in plan_of(budget, store="coded", fall=1.0).weights:
        assert isinstance(p.store, Coded) and p.store.step
        assert p.expected_error is not None
        assert p.expected_error <= budget.get("tolerance", 0.5) < 1


def test_a_tolerance_of_0_in_coded_keeps_ranks_and_what_float16_would() -> None:
    plan = plan_of({"tolerance": 0}, store="coded", fall=1.0)
    for p in plan.weights:
        assert p.layout and p.ranks == p.layout.full_ranks
        assert p.expected_error is not None and p.expected_error < 2e-3


@pytest.mark.parametrize("budget", [None, {"tolerance": 0.1}, {"factor": 4}], ids=str)
def test_explicit_ranks_in_coded_are_kept(budget: dict[str, float] | None) -> None:
    rule = {"weights": "*_1", "row_modes": [64], "column_modes": [16], "ranks": [5]}
    plan = plan_of(budget, store="coded", rules=[rule], default="keep", fall=1.0)
    truncated = sqrt(spectrum_of((64, 16), 1, 1.0, (64, 1)).tail(5))
    norm = float(np.linalg.norm(matrix_of((64, 16), 1, 1.0)))
    limit = 1.2 if budget == {"factor": 4} else 1.006
    planned = plan.weights[1]
    assert planned.ranks == (5,) and planned.expected_error is not None
    assert planned.bytes < planned.weight.bytes / 4
    assert truncated / norm < planned.expected_error < limit * truncated / norm


def test_a_tolerance_in_coded_takes_the_fewest_bytes() -> None:
    wide, narrow = (
        plan_of({"tolerance": tolerance}, store="coded", fall=1.0) for tolerance in (0.3, 0.1)
    )
    assert wide.weights_totals.bytes_after < 0.6 * narrow.weights_totals.bytes_after
    assert all(p.expected_error and p.expected_error > 0.27 for p in wide.weights)
    whole = plan_of({"tolerance": 0.1}, store="int8", fall=1.0)
    assert narrow.weights_totals.bytes_after < whole.weights_totals.bytes_after


def test_bytes_that_accuracy_does_not_need_are_not_spent() -> None:
    keys = {"fall": 0.5, "format": "mps"}
    loose = plan_of({"factor": 1.5, "multiply_adds": 4}, **keys)
    assert loose.weights_totals.compression_factor > 3
    exact = plan_of({"multiply_adds": 4}, store="float32", **keys)
    assert expected_error(loose) <= 1.006 * expected_error(exact)


def test_a_weight_of_zeros_is_coded_in_next_to_nothing() -> None:
    recipe = recipe_from({"version": 1, "budget": {"factor": 4}, "format": "mps"})
    weights = weights_of(SHAPES)
    spectra = spectra_of(recipe, weights)
    none = {cut: Spectrum((0.0,) * len(s.values)) for cut, s in spectra[weights[0].name].items()}
    plan = make_plan(recipe, weights, [], spectra | {weights[0].name: none})
    assert plan.weights[0].ranks == (1,)
    assert plan.weights[0].bytes < 0.1 * plan.weights[1].bytes
