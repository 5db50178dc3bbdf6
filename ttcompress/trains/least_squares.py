"""Alternating least squares: improves the cores of a train one at a time under a weighted error.

Holtz, Rohwedder and Schneider, "The alternating linear scheme for tensor optimization in the tensor
train format", SIAM J. Sci. Comput. 34 (2012). The matrix is linear in each core, so each step is a
linear least squares problem. With A the map from a core to the matrix (the others fixed), A* its
adjoint and M the metric, its normal equations are

    A* M A core = A* M W

and conjugate gradients solve them without forming A* M A. If the other cores are nearly singular,
rounding errors can make a core worse; it is then discarded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from torch import Tensor

from ttcompress.trains.train import Train

Metric = Callable[[Tensor], Tensor]
"""A symmetric, positive linear map M: the cost of an error E is <E, M E>, its gradient 2 M E."""

_STEPS = 8
"""Conjugate gradient steps for each core, from its current value."""


def alternate(train: Train, matrix: Tensor, metric: Metric, sweeps: int) -> Train:
    """Sweep over all cores, forwards and backwards in turn; the error never grows."""
    for sweep in range(sweeps):
        indices = range(len(train.cores))
        train = improve(train, matrix, metric, indices if sweep % 2 else reversed(indices))
    return train


def improve(train: Train, matrix: Tensor, metric: Metric, indices: Iterable[int]) -> Train:
    """Solve for the cores of these indices, one after another."""
    for index in indices:
        solved = _solve(train, index, matrix, metric)
        cores = (*train.cores[:index], solved, *train.cores[index + 1 :])
        train = replace(train, cores=cores)
    return train


def _solve(train: Train, index: int, matrix: Tensor, metric: Metric) -> Tensor:
    """Solve the normal equations of one core, from its current value."""
    core = train.cores[index]
    forward, adjoint = train.around(index)

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
