"""Rounding that answers for itself: later columns make up for the rounding of earlier ones.

Frantar, Ashkboos, Hoefler and Alistarh, "OPTQ: accurate quantization for generative pre-trained
transformers" (ICLR 2023): columns are rounded one after another, and what is left is corrected so
that the outputs on the known inputs change least.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ttcompress.stores.rounding import Rounded, Scales, fit_scales, nearest, round_to
from ttcompress.stores.store import Store
from ttcompress.trains.least_squares import improved
from ttcompress.trains.train import Train
from ttcompress.trains.weighting import Weighting, damped_moment

_DAMPING = 1e-2
"""Of the moment, as in the paper: keeps corrections small where inputs hardly vary."""

_BLOCK = 128
"""Columns corrected at once; those behind them are corrected when the block is done."""

PLAIN_BITS = 8
"""From this many bits on rounding costs too little to be answered for."""


def is_answered(store: Store) -> bool:
    """Whether error feedback is worth its time in this store."""
    return store.is_integer and store.bits < PLAIN_BITS


def round_matrix(matrix: Tensor, store: Store, moment: Tensor) -> Rounded:
    """Round the rows of a matrix (rows, columns) for inputs of a second moment (columns, columns).

    Raises:
        DecompositionError: a value is outside what the store can hold.
    """
    if not is_answered(store):
        return round_to(matrix, store)
    scales = fit_scales(matrix, store)
    return round_to(_compensated(matrix.double(), store, scales, moment), store, scales)


def round_train(
    train: Train, matrix: Tensor, store: Store, weighting: Weighting | None
) -> tuple[Rounded, ...]:
    """Round the cores of a train; with a weighting, later ones make up for earlier ones.

    Where whitening is exact the last core is rounded for the weight's inputs. One before it is then
    solved for what the rounded one makes of these, and rounded for that.

    Raises:
        DecompositionError: a value is outside what the store can hold.
    """
    if weighting is None or not is_answered(store):
        return tuple(round_to(core, store) for core in train.cores)
    if train.whitening_is_exact:
        if len(train.cores) == 1:
            return (round_matrix(train.cores[0], store, weighting.moment),)
        return _round_factors(train, matrix.double(), store, weighting)
    parts: list[Rounded] = []
    for index in range(len(train.cores)):
        parts.append(round_to(train.cores[index], store))
        done = tuple(part.values().double() for part in parts)
        train = replace(train, cores=(*done, *train.cores[index + 1 :]))
        later = range(index + 1, len(train.cores))
        train = improved(train, matrix.double(), weighting.apply, later)
    return tuple(parts)


def _round_factors(
    train: Train, matrix: Tensor, store: Store, weighting: Weighting
) -> tuple[Rounded, ...]:
    left, right = train.cores
    right_part = round_matrix(right[..., 0], store, weighting.moment)
    right = right_part.values().double()  # (rank, columns)
    moment = damped_moment(right @ weighting.moment @ right.mT, 1e-9)
    seen = matrix @ weighting.moment @ right.mT  # (rows, rank)
    solved = torch.linalg.solve(moment, seen.mT).mT
    left_part = round_matrix(solved, store, moment)
    return (
        Rounded(store, tuple(left.shape), left_part.tensors),
        Rounded(store, (*right.shape, 1), right_part.tensors),
    )


def _compensated(
    matrix: Tensor, store: Store, scales: Scales, moment: Tensor
) -> Tensor:  # (rows, columns), float64: each value as it is when its turn comes to be rounded
    damped = damped_moment(moment, _DAMPING)
    order = damped.diagonal().argsort(descending=True)  # what counts most is rounded first
    hessian = damped[order][:, order]
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    factor = torch.linalg.cholesky(inverse, upper=True)
    steps = _steps(matrix, scales, store)[:, order]
    values = matrix[:, order].clone()
    for start in range(0, values.shape[1], _BLOCK):
        end = min(values.shape[1], start + _BLOCK)
        errors = torch.empty(len(values), end - start, dtype=torch.float64)
        for k in range(start, end):
            rounded = nearest(values[:, k], steps[:, k], store)
            error = (values[:, k] - rounded) / factor[k, k]
            values[:, k + 1 : end] -= torch.outer(error, factor[k, k + 1 : end])
            errors[:, k - start] = error
        values[:, end:] -= errors @ factor[start:end, end:]
    found = torch.empty_like(values)
    found[:, order] = values
    return found


def _steps(matrix: Tensor, scales: Scales, store: Store) -> Tensor:
    """The step of every value, (rows, columns): groups run over the flattened matrix."""
    spread = (scales[0].double() * scales[1]).repeat_interleave(store.group or 1)
    return spread[: matrix.numel()].reshape(matrix.shape)
