"""Options in the store `coded`: what they promise is what coding gives; none near is better."""

from __future__ import annotations

from dataclasses import replace
from math import inf, sqrt

import pytest
import torch
from torch import Tensor

from ttcompress.model.weights import Weight
from ttcompress.planning.allocation import Allowance, allocate, total_cost
from ttcompress.planning.candidates import Cost
from ttcompress.planning.coded import CodedOption
from ttcompress.planning.formats import DenseLayout, Layout, MpoLayout, MpsLayout
from ttcompress.planning.spectrum import Spectrum
from ttcompress.stores.coded import CODED
from ttcompress.trains.stored import measure_errors, store_weight
from ttcompress.trains.tt_svd import spectrum_at

ROWS, COLUMNS = 160, 96
PAIR = MpsLayout((ROWS,), (COLUMNS,))
LAYOUTS = {
    "two cores": PAIR,
    "dense": DenseLayout((ROWS,), (COLUMNS,)),
    "three cores": MpsLayout((8, 20), (COLUMNS,)),
    "MPO": MpoLayout((8, 20), (8, 12)),
}


def matrix_of(fall: float = 0.7, seed: int = 0) -> Tensor:
    """Normal singular vectors, and singular values that fall as index ** -fall."""
    drawn = torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(seed)).double()
    u, _, vt = torch.linalg.svd(drawn, full_matrices=False)
    return (u * torch.arange(1, COLUMNS + 1).double() ** -fall) @ vt


def option_of(matrix: Tensor, layout: Layout = PAIR) -> CodedOption:
    spectra = tuple(Spectrum(tuple(spectrum_at(matrix, cut).values)) for cut in layout.cuts)
    energy, caps = float(matrix.square().sum()), layout.full_ranks
    return CodedOption(layout, CODED, energy, spectra, tuple(1 for _ in caps), caps)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("bits", [1.5, 3.0, 5.0])
def test_bytes_and_errors_are_those_of_the_coded_weight(layout: Layout, bits: float) -> None:
    matrix = matrix_of()
    menu = (option_of(matrix, layout),)
    found = allocate([menu], Allowance(bytes=ROWS * COLUMNS * bits / 8))
    assert found is not None
    (choice,) = found
    weight = Weight("w", ("w",), "recurrent", (ROWS, COLUMNS), "float32")
    stored, _ = store_weight(matrix, weight, layout, choice.ranks, choice.option.store)
    error = measure_errors(matrix, stored.blocks(), weight).relative_error
    expected = sqrt(choice.option.expected_error(choice.ranks) / choice.option.energy)
    assert stored.bytes == pytest.approx(choice.cost.bytes, rel=0.1)
    assert error <= 1.03 * expected
    if layout.cores < 3 and layout.middle is not None:
        assert error == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("fall", [0.2, 0.7, 1.5])
@pytest.mark.parametrize("bits", [0.5, 2.0, 4.0])
def test_no_other_rank_and_step_are_better_at_equal_bytes(fall: float, bits: float) -> None:
    option, allowed = option_of(matrix_of(fall)), ROWS * COLUMNS * bits / 8
    found = allocate([(option,)], Allowance(bytes=allowed))
    assert found is not None
    (choice,) = found
    assert 0.999 * allowed < choice.cost.bytes <= allowed
    errors = []
    for rank in range(1, COLUMNS + 1):
        low, high = 1e-6, 10.0
        for _ in range(50):
            middle = sqrt(low * high)
            if option.at_step(middle).cost((rank,)).bytes <= allowed:
                high = middle
            else:
                low = middle
        errors.append(option.at_step(high).error((rank,)))
    assert choice.error <= 1.005 * min(errors)
    assert min(errors) < 0.98 * max(errors)


def test_one_price_makes_all_steps_alike_and_every_rank_pays() -> None:
    steep, flat = option_of(matrix_of(1.5)), option_of(matrix_of(0.2, seed=1))
    found = allocate([(steep,), (flat,)], Allowance(bytes=ROWS * COLUMNS / 2))
    assert found is not None
    one, other = (choice.option.store.step for choice in found)  # type: ignore[attr-defined]
    assert one == pytest.approx(other)
    assert found[0].ranks < found[1].ranks
    spent, best = total_cost(found).bytes, found[0].error + found[1].error
    for moved in (-40, 40):  # bytes from one to the other
        shares = (found[0].cost.bytes + moved, found[1].cost.bytes - moved)
        pair = [
            allocate([(option,)], Allowance(bytes=share))
            for option, share in zip((steep, flat), shares, strict=True)
        ]
        assert sum(choices[0].error if choices else inf for choices in pair) >= 0.999 * best
    assert spent <= ROWS * COLUMNS / 2


def test_two_limits_are_met_and_used_up_together() -> None:
    menus = [(option_of(matrix_of(fall, seed=k)),) for k, fall in enumerate((0.4, 0.9))]
    rank = 20  # for both: a third of the work of the matrices
    allowance = Allowance(bytes=4000, multiply_adds=2 * rank * (ROWS + COLUMNS))
    found = allocate(menus, allowance)
    assert found is not None
    spent = total_cost(found)
    assert 0.99 * 4000 < spent.bytes <= 4000
    assert 0.95 * allowance.multiply_adds < spent.multiply_adds <= allowance.multiply_adds
    free = allocate(menus, Allowance(bytes=4000))
    assert free is not None
    assert sum(c.error for c in free) < sum(c.error for c in found)
    assert total_cost(free).multiply_adds > spent.multiply_adds


def test_a_coarser_step_is_found_as_far_as_errors_allow() -> None:
    option = option_of(matrix_of()).at_price(Cost())
    allowed = 1.01 * option.truncation((10,))
    coarser = option.coarsened((10,), allowed)
    assert 0.999 * allowed < coarser.error((10,)) <= allowed
    assert coarser.cost((10,)).bytes < 0.7 * option.cost((10,)).bytes
    assert option.coarsened((10,), 0.0) == option  # nothing is allowed: as it was


def test_floors_keep_their_rank_and_their_step() -> None:
    option = option_of(matrix_of()).at_step(1e-3).at_least((12,))
    dear = option.at_price(Cost(bytes=1e30))
    assert dear.store == CODED.at(pytest.approx(1e-3))
    assert dear.descend(Cost(bytes=1e30), (40,)) == (12,)
    free = replace(option, floors=(1,), coarsest=inf)
    assert free.at_price(Cost(bytes=1e30)).descend(Cost(bytes=1e30), (40,)) == (1,)


def test_a_matrix_of_zeros_costs_next_to_nothing_and_loses_nothing() -> None:
    option = option_of(torch.zeros(ROWS, COLUMNS).double(), LAYOUTS["dense"])
    found = allocate([(option,)], Allowance(bytes=ROWS * COLUMNS / 8))
    assert found is not None
    (choice,) = found
    assert choice.error == 0 == choice.option.expected_error(())
    assert choice.cost.bytes < 1.1 * option.at_price(Cost(bytes=1e30)).cost(()).bytes
