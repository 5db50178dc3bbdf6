"""What an error in each value of a core costs in the matrix, so that it can be rounded accordingly.

With orthogonal parts on its left, an error in column j of a core is multiplied by row j of the part
on its right; the cost is the square of its norm. In general the cost of a unit error is the product
of two diagonals of Gram matrices, of the part before the core and of the part after it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ttcompress.stores import Costs
from ttcompress.trains.train import Train
from ttcompress.trains.weighting import Weighting


def core_costs(train: Train, weighting: Weighting | None) -> tuple[Costs, ...]:
    """The cost of a unit error in each value of every core, as `Costs` of its grid.

    With a weighting, rows and inputs count as they do in its cost where the layout has one core or
    two, and by their means in longer trains. Errors in the last core count as they do if later
    columns compensate for earlier ones.
    """
    if not train.layout.decomposes:
        rows = torch.ones(train.shape[0]).double() if weighting is None else weighting.rows
        return (Costs(_mean_input(weighting) * rows, torch.ones(train.shape[1]).double()),)
    cores = [core.double() for core in train.cores]
    split = weighting if train.whitening_is_exact else None
    before, after = _grams_before(cores, split), _grams_after(cores, split)
    mean = 1.0
    if weighting is not None and split is None:
        mean = float(weighting.rows.mean()) * weighting.rounding
    costs = []
    for core, left, right in zip(cores[:-1], before, after, strict=False):
        places = left.diagonal().repeat_interleave(core[0, ..., 0].numel())
        if split is not None:
            places = split.rows
        costs.append(Costs(mean * right.diagonal(), places))
    last = mean if split is None else _mean_input(split)
    return (*costs, Costs(last * before[-1].diagonal(), torch.ones(cores[-1][0].numel()).double()))


def _mean_input(weighting: Weighting | None) -> float:
    return 1.0 if weighting is None else weighting.rounding


def _grams_before(cores: list[Tensor], weighting: Weighting | None) -> list[Tensor]:
    """The Gram matrix of the part before each core, (rank, rank); with D if there are two cores."""
    found = [torch.ones(1, 1).double()]
    for core in cores[:-1]:
        flat = core.reshape(len(core), -1, core.shape[-1])
        if weighting is not None:
            flat = flat * weighting.rows.sqrt()[:, None]
        found.append(torch.einsum("ab,amc,bmd->cd", found[-1], flat, flat))
    return found


def _grams_after(cores: list[Tensor], weighting: Weighting | None) -> list[Tensor]:
    """The Gram matrix of the part after each core but the last; with C if there are two cores."""
    found = [torch.ones(1, 1).double()]
    for core in reversed(cores[1:]):
        flat = core.reshape(len(core), -1, core.shape[-1])
        if weighting is not None:
            right = flat[..., 0]
            found.append(right @ weighting.moment @ right.mT)
        else:
            found.append(torch.einsum("amc,cd,bmd->ab", flat, found[-1], flat))
    return found[:0:-1]
