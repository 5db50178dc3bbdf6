"""Rounds values so that outputs on known inputs change little: later values absorb earlier errors.

Frantar, Ashkboos, Hoefler and Alistarh, "OPTQ: accurate quantization for generative pre-trained
transformers" (ICLR 2023): columns are rounded one after another, and after each the columns that
are left are corrected so that the outputs on the known inputs change least.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ttcompress.stores import Costs, Encoded, Store
from ttcompress.trains.costs import core_costs
from ttcompress.trains.least_squares import improve
from ttcompress.trains.train import Train
from ttcompress.trains.weighting import Weighting, damp_moment

_DAMPING = 1e-2
"""Fraction of the moment, as in the paper: keeps corrections small where inputs hardly vary."""

_BLOCK = 32
"""Columns per block; those after it are corrected in one product when the block is done."""


def round_matrix(
    matrix: Tensor,
    store: Store,
    moment: Tensor,
    shape: tuple[int, ...] | None = None,
    costs: Costs | None = None,
) -> Encoded:
    """Round the rows of a matrix (rows, columns) for inputs of a second moment (columns, columns).

    Zeros stay zeros: they absorb no errors.

    Args:
        matrix: what to round.
        store: what to round to; unless it is `coarse`, the inputs are ignored.
        moment: second moment of the inputs.
        shape: the shape to store, if the matrix is a core without its outer ranks.
        costs: of errors in the values as they are stored.

    Raises:
        DecompositionError: a value is out of the range of the store.
    """
    values = matrix.reshape(shape or matrix.shape)
    if not store.coarse:
        return store.encode(values)
    fitted = store.fit(values, costs)
    wide = matrix.double()
    steps = store.steps(fitted, wide.reshape(values.shape))
    if steps is not None:
        wide = _compensate(wide, store, steps.reshape(matrix.shape), moment)
    return store.encode(wide.reshape(values.shape), fitted)


def round_train(
    train: Train, matrix: Tensor, store: Store, weighting: Weighting | None
) -> tuple[Encoded, ...]:
    """Round the cores of a train; with a weighting, later cores absorb the errors of earlier ones.

    If whitening is exact, the last core is rounded for the weight's inputs. The core before it is
    then solved for again, given the rounded one, and rounded for the outputs of that.

    Raises:
        DecompositionError: a value is out of the range of the store.
    """
    if weighting is None or not store.coarse:
        return tuple(
            store.encode(core, store.fit(core, costs))
            for core, costs in zip(train.cores, core_costs(train, weighting), strict=True)
        )
    if train.whitening_is_exact:
        if len(train.cores) == 1:
            (costs,) = core_costs(train, weighting)
            return (round_matrix(train.cores[0], store, weighting.moment, costs=costs),)
        return _round_factors(train, matrix.double(), store, weighting)
    parts: list[Encoded] = []
    for index in range(len(train.cores)):
        core, costs = train.cores[index], core_costs(train, weighting)[index]
        parts.append(store.encode(core, store.fit(core, costs)))
        done = tuple(part.values().double() for part in parts)
        train = replace(train, cores=(*done, *train.cores[index + 1 :]))
        later = range(index + 1, len(train.cores))
        train = improve(train, matrix.double(), weighting.apply, later)
    return tuple(parts)


def _round_factors(
    train: Train, matrix: Tensor, store: Store, weighting: Weighting
) -> tuple[Encoded, ...]:
    # Given the rounded right factor R, the best left factor L minimises |(W - L R) C^(1/2)|, so
    # L (R C R^T) = W C R^T; its inputs are R x, whose second moment is R C R^T.
    left, right = train.cores
    _, costs = core_costs(train, weighting)
    right_part = round_matrix(right[..., 0], store, weighting.moment, tuple(right.shape), costs)
    right = right_part.values().double()[..., 0]  # (rank, columns)
    moment = damp_moment(right @ weighting.moment @ right.mT, 1e-9)
    seen = matrix @ weighting.moment @ right.mT  # W C R^T, (rows, rank)
    solved = torch.linalg.solve(moment, seen.mT).mT
    costs = Costs(moment.diagonal(), weighting.rows)
    return round_matrix(solved, store, moment, tuple(left.shape), costs), right_part


def _compensate(
    matrix: Tensor, store: Store, steps: Tensor, moment: Tensor
) -> Tensor:  # (rows, columns), float64: each value as it is just before it is rounded
    # With U the upper Cholesky factor of C^-1, the error of column k, divided by U[k, k] and times
    # U[k, j], is subtracted from each later column j (Frantar et al. 2023, algorithm 1). A zero is
    # rounded to zero whatever was added to it, and its error goes on to later columns.
    damped = damp_moment(moment, _DAMPING)
    order = damped.diagonal().argsort(descending=True)  # the inputs with most energy come first
    hessian = damped[order][:, order]
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    factor = torch.linalg.cholesky(inverse, upper=True)
    # A column is a row here, so that it lies in one piece.
    values, steps = matrix.mT[order].contiguous(), steps.mT[order].contiguous()
    zero = values == 0
    for start in range(0, len(values), _BLOCK):
        block = values[start : start + _BLOCK]
        end = start + len(block)
        errors = torch.empty_like(block)
        for k, (column, error) in enumerate(zip(block, errors, strict=True)):
            here = start + k
            rounded = store.nearest(column, steps[here]).masked_fill(zero[here], 0.0)
            torch.sub(column, rounded, out=error).div_(factor[here, here])
            block[k + 1 :].addr_(factor[here, here + 1 : end], error, alpha=-1)
        values[end:].addmm_(factor[start:end, end:].mT, errors, alpha=-1)
    found = torch.empty_like(values)
    found[order] = values.masked_fill(zero, 0.0)
    return found.mT
