"""Flash: what a device holds is counted in the bytes that its arrays have, and never exceeded."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.planning.test_planner import larger_by_one_rank, plan_of
from ttcompress.errors import PlanError
from ttcompress.planning.candidates import Cost, Option
from ttcompress.planning.flash import Bits, factors_pay, held_bytes
from ttcompress.planning.formats import DenseLayout, MpoLayout, MpsLayout
from ttcompress.planning.spectrum import Spectrum
from ttcompress.stores import STORES

SHAPES = ((256, 40), (256, 64), (256, 64))


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(90, 130),
    columns=st.integers(90, 130),
    bits=st.sampled_from([4, 8, 32]),
    price=st.floats(-7, -1),
    work=st.sampled_from([0.0, 1.0]),
    fall=st.floats(0.0, 2.0),
)
@example(rows=113, columns=121, bits=4, price=-2.09375, work=0.0, fall=0.0)  # padding decides
def test_ranks_are_the_best_at_a_price_although_columns_come_in_eights(
    rows: int, columns: int, bits: Bits, price: float, work: float, fall: float
) -> None:
    values = (1.0 + np.arange(min(rows, columns))) ** -fall
    energy = float(np.square(values).sum())
    most = max(rank for rank in range(1, 60) if factors_pay(rows, columns, rank))
    option = Option(
        MpsLayout((rows,), (columns,)),
        STORES["int8"],
        energy,
        (Spectrum(tuple(values.tolist())),),
        (1,),
        (most,),
        held=bits,
    )
    prices = Cost(flash=10**price, multiply_adds=work * 10**price)

    def score(rank: int) -> float:
        return option.error((rank,)) + option.cost((rank,)).times(prices)

    (chosen,) = option.descend(prices, (most,))
    assert score(chosen) <= min(map(score, range(1, most + 1))) * (1 + 1e-9)


@settings(max_examples=25, deadline=None)
@given(
    budget=st.fixed_dictionaries(
        {},
        optional={
            "factor": st.floats(4.2, 20),
            "flash": st.integers(9_000, 50_000),
            "multiply_adds": st.floats(1, 4),
            "size": st.integers(12_000, 40_000),
        },
    ).filter(bool),
    train_format=st.sampled_from(["mps", "auto"]),
    store=st.sampled_from(["auto", "int4", "float32"]),
    fall=st.sampled_from([0.0, 0.5, 1.5]),
)
def test_no_budget_is_broken_where_flash_is_counted(budget, train_format, store, fall) -> None:
    keys = {"format": train_format, "store": store, "target": "c"}
    try:
        plan = plan_of(budget, shapes=SHAPES, fall=fall, overhead=500, **keys)
    except PlanError as error:
        assert "out of reach" in str(error)
        return
    used, totals = plan.flash, plan.weights_totals
    assert used is not None
    before = totals.bytes_before
    most = min(budget.get("flash", inf), before / budget["factor"] if "factor" in budget else inf)
    assert used.weights <= most
    assert totals.bytes_after <= budget.get("size", inf)
    assert totals.fewer_multiply_adds >= budget.get("multiply_adds", 0)


@pytest.mark.parametrize(
    ("store", "factor"),
    [("auto", 6.0), ("auto", 9.5), ("auto", 16.0), ("int4", 25.0), ("float32", 5.0)],
)
def test_no_further_rank_fits_into_flash(store: str, factor: float) -> None:
    plan = plan_of({"factor": factor}, shapes=SHAPES, store=store, target="c")
    bits = {"auto": 8, "int4": 4, "float32": 32}[store]
    assert plan.flash is not None
    left = plan.weights_totals.bytes_before / factor - plan.flash.weights
    assert left >= 0
    for planned in plan.weights:
        assert planned.layout is not None
        assert planned.flash == held_bytes(planned.layout, planned.ranks, bits, 4)
        for more in larger_by_one_rank(planned):
            assert more.layout is not None
            assert held_bytes(more.layout, more.ranks, bits, 4) - planned.flash > left


def test_the_store_says_what_c_computes_in_and_auto_is_int8() -> None:
    plans = {
        store: plan_of({"factor": 16}, shapes=SHAPES, store=store, target="c")
        for store in ("auto", "int8", "int4", "coded")
    }
    ranks = {store: [p.ranks for p in plan.weights] for store, plan in plans.items()}
    assert {p.store.name for p in plans["auto"].weights if p.store} == {"int8"}
    assert ranks["auto"] == ranks["int8"]
    assert sum(r for (r,) in ranks["int4"]) > 1.5 * sum(r for (r,) in ranks["int8"])
    assert plans["coded"].flash == plans["int8"].flash


def test_trains_that_c_would_merge_are_not_offered() -> None:
    plan = plan_of({"factor": 6}, shapes=SHAPES, format="auto", target="c")
    assert {len(p.ranks) for p in plan.weights} <= {0, 1}
    assert not any(isinstance(p.layout, MpoLayout) for p in plan.weights)
    longer = plan_of({"factor": 6}, shapes=SHAPES, format="mps", target="file", store="int8")
    assert any(len(one.row_modes) > 1 for p in longer.weights for one in p.tried)


def test_a_matrix_is_what_an_mpo_takes() -> None:
    mpo, dense = MpoLayout((16, 16), (8, 5)), DenseLayout((256,), (40,))
    assert held_bytes(mpo, (3,), 8) == held_bytes(dense, (), 8)
    # Three modes are merged into two factors: the middle rank alone counts.
    three = MpsLayout((16, 16), (40,))
    assert held_bytes(three, (2, 5), 8) == held_bytes(MpsLayout((256,), (40,)), (5,), 8)


@pytest.mark.parametrize(
    ("budget", "fact"),
    [
        ({"factor": 200}, r"factor 200 is out of reach: .* the factor in flash is \d+\.\d"),
        ({"flash": 5_000}, r"flash 5,000 is out of reach: .* it takes [\d,]+ bytes\."),
    ],
)
def test_what_is_out_of_reach_is_said_in_bytes_of_flash(budget: dict[str, float], fact) -> None:
    with pytest.raises(PlanError, match=fact):
        plan_of(budget, shapes=SHAPES, target="c")
