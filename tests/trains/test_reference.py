"""The reference is checked where it can be: on cores whose matrix is known without it."""

from __future__ import annotations

import pytest
import tensorly
import torch
from torch import Tensor

from ttcompress.planning.formats import Layout, MpoLayout, MpsLayout
from ttcompress.trains.formats import train_of
from ttcompress.trains.reference import mpo_matrix, mps_matrix

LAYOUTS = (
    MpsLayout((6,), (4,)),
    MpsLayout((2, 3), (2, 5)),
    MpsLayout((7,), (2, 3, 2)),
    MpoLayout((6,), (4,)),
    MpoLayout((2, 3), (5, 4)),
    MpoLayout((4, 1, 3), (1, 7, 2)),
)


def cores_of(layout: Layout) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(3)
    shapes = layout.core_shapes(layout.attainable([3] * (layout.cores - 1)))
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_it_agrees_with_the_packages_own_contraction(layout: Layout) -> None:
    cores = cores_of(layout)
    matrix = train_of(layout, cores).reference()
    assert (matrix.dtype, tuple(matrix.shape)) == (torch.float64, layout.shape)
    own = train_of(layout, tuple(core.double() for core in cores)).to_dense()
    torch.testing.assert_close(matrix, own, rtol=0, atol=1e-12)


def test_an_mpo_of_rank_1_is_a_kronecker_product() -> None:
    a, b = torch.randn(2, 3), torch.randn(4, 5)
    matrix = mpo_matrix([a[None, ..., None], b[None, ..., None]], MpoLayout((2, 4), (3, 5)))
    torch.testing.assert_close(matrix, torch.kron(a.double(), b.double()))


def test_cores_of_another_shape_are_refused() -> None:
    layout = MpsLayout((6,), (4,))
    with pytest.raises(ValueError):  # tensorly: they do not chain
        mps_matrix([torch.ones(1, 6, 3), torch.ones(2, 4, 1)], layout)
    with pytest.raises(ValueError, match=r"cores have modes \(6, 5\), but the layout has \(6, 4\)"):
        mps_matrix([torch.ones(1, 6, 3), torch.ones(3, 5, 1)], layout)


def test_the_users_backend_is_left_alone() -> None:
    before = tensorly.get_backend()
    mps_matrix(cores_of(LAYOUTS[0]), LAYOUTS[0])
    assert tensorly.get_backend() == before
