"""Alternating least squares: the cores of a train improve one at a time under a weighted error.

Holtz, Rohwedder and Schneider, "The alternating linear scheme for tensor optimization in the tensor
train format", SIAM J. Sci. Comput. 34 (2012). The matrix is linear in each core, so each step is a
linear least squares problem; conjugate gradients solve it without forming its normal equations. A
core that rounding errors made worse, where the others are nearly singular, is not taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import reduce

import torch
from torch import Tensor

from ttcompress.trains.train import Train, matricize, tensorize

Metric = Callable[[Tensor], Tensor]
"""A symmetric, positive linear map: of an error, the gradient of half the square that counts."""

_STEPS = 8
"""Conjugate gradient steps a core: each starts from the core there is."""


def alternated(train: Train, matrix: Tensor, metric: Metric, sweeps: int) -> Train:
    """Sweep over all cores, forwards and backwards in turn; the error never grows."""
    for sweep in range(sweeps):
        indices = range(len(train.cores))
        train = improved(train, matrix, metric, indices if sweep % 2 else reversed(indices))
    return train


def improved(train: Train, matrix: Tensor, metric: Metric, indices: Iterable[int]) -> Train:
    """The train with the cores of these indices solved for, one after another."""
    for index in indices:
        cores = list(train.cores)
        cores[index] = _solved(train, index, matrix, metric)
        train = Train(train.layout, tuple(cores))
    return train


def _solved(train: Train, index: int, matrix: Tensor, metric: Metric) -> Tensor:
    """Conjugate gradients on the normal equations of one core, from where it stands."""
    core = train.cores[index]
    left, right = _around(train, index)

    def forward(values: Tensor) -> Tensor:  # the core's shape -> (rows, columns)
        middle = left @ values.reshape(left.shape[1], -1)
        tensor = middle.reshape(-1, right.shape[0]) @ right
        return matricize(tensor.reshape(train.layout.sizes), train.layout)

    def adjoint(error: Tensor) -> Tensor:  # the inverse way
        tensor = tensorize(error, train.layout).reshape(-1, right.shape[1]) @ right.mT
        return (left.mT @ tensor.reshape(left.shape[0], -1)).reshape(core.shape)

    def cost(values: Tensor) -> float:
        error = matrix - forward(values)
        return float((error * metric(error)).sum())

    solved = _conjugate_gradients(
        core, adjoint(metric(matrix - forward(core))), lambda v: adjoint(metric(forward(v)))
    )
    return solved if cost(solved) < cost(core) else core


def _conjugate_gradients(start: Tensor, residual: Tensor, normal: Metric) -> Tensor:
    """Hestenes and Stiefel (1952), for the normal equations whose residual at `start` is given."""
    values, direction, square = start, residual, float(residual.square().sum())
    for _ in range(_STEPS):
        image = normal(direction)
        curvature = float((direction * image).sum())
        if square <= 0 or curvature <= 0:
            break
        values = values + (square / curvature) * direction
        residual = residual - (square / curvature) * image
        before, square = square, float(residual.square().sum())
        direction = residual + (square / before) * direction
    return values


def _around(train: Train, index: int) -> tuple[Tensor, Tensor]:
    """What stands left and right of a core: (modes before, rank), (rank, modes after)."""
    one = torch.ones(1, 1, dtype=train.cores[0].dtype)

    def join(left: Tensor, core: Tensor) -> Tensor:
        return (left @ core.reshape(core.shape[0], -1)).reshape(-1, core.shape[-1])

    def join_right(right: Tensor, core: Tensor) -> Tensor:
        return (core.reshape(-1, core.shape[-1]) @ right).reshape(core.shape[0], -1)

    left = reduce(join, train.cores[:index], one)
    return left, reduce(join_right, reversed(train.cores[index + 1 :]), one)
