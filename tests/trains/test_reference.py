"""The reference is checked where it can be: on cores whose matrix is known without it."""

from __future__ import annotations

import pytest
import tensorly
import torch
from torch import Tensor

from ttcompress.planning.formats import Layout
from ttcompress.trains.reference import reference_matrix
from ttcompress.trains.train import Train

LAYOUTS = (
    Layout("mps", (6,), (4,)),
    Layout("mps", (2, 3), (2, 5)),
    Layout("mps", (7,), (2, 3, 2)),
    Layout("mpo", (6,), (4,)),
    Layout("mpo", (2, 3), (5, 4)),
    Layout("mpo", (4, 1, 3), (1, 7, 2)),
)


def cores_of(layout: Layout) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(3)
    shapes = layout.core_shapes(layout.attainable([3] * (layout.cores - 1)))
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_it_agrees_with_the_packages_own_contraction(layout: Layout) -> None:
    cores = cores_of(layout)
    matrix = reference_matrix(cores, layout)
    assert (matrix.dtype, tuple(matrix.shape)) == (torch.float64, layout.shape)
    own = Train(layout, tuple(core.double() for core in cores)).to_dense()
    torch.testing.assert_close(matrix, own, rtol=0, atol=1e-12)


def test_an_mpo_of_rank_1_is_a_kronecker_product() -> None:
    a, b = torch.randn(2, 3), torch.randn(4, 5)
    matrix = reference_matrix(
        [a[None, ..., None], b[None, ..., None]], Layout("mpo", (2, 4), (3, 5))
    )
    torch.testing.assert_close(matrix, torch.kron(a.double(), b.double()))


def test_cores_of_another_shape_are_refused() -> None:
    layout = Layout("mps", (6,), (4,))
    with pytest.raises(ValueError):  # tensorly: they do not chain
        reference_matrix([torch.ones(1, 6, 3), torch.ones(2, 4, 1)], layout)
    with pytest.raises(ValueError, match=r"cores have modes \(6, 5\), the layout \(6, 4\)"):
        reference_matrix([torch.ones(1, 6, 3), torch.ones(3, 5, 1)], layout)


def test_the_users_backend_is_left_alone() -> None:
    before = tensorly.get_backend()
    reference_matrix(cores_of(LAYOUTS[0]), LAYOUTS[0])
    assert tensorly.get_backend() == before
