"""What an error in each value of a core costs in the matrix, so that it can be rounded accordingly.

With orthogonal parts on its left, an error in column j of a core is multiplied by row j of the part
on its right; the cost is the square of its norm. In general the cost of a unit error is the product
of two squared norms, in the part before the core and in the part after it.
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
    before, after = _norms_before(cores, split), _norms_after(cores, split)
    mean = 1.0
    if weighting is not None and split is None:
        mean = float(weighting.rows.mean()) * weighting.rounding
    costs = []
    for core, left, right in zip(cores[:-1], before, after, strict=False):
        places = left.repeat_interleave(core[0, ..., 0].numel())
        if split is not None:
            places = split.rows
        costs.append(Costs(mean * right, places))
    last = mean if split is None else _mean_input(split)
    return (*costs, Costs(last * before[-1], torch.ones(cores[-1][0].numel()).double()))


def _mean_input(weighting: Weighting | None) -> float:
    return 1.0 if weighting is None else weighting.rounding


def _norms_before(cores: list[Tensor], weighting: Weighting | None) -> list[Tensor]:
    """The squared norm of each component of the part before each core, (rank,); with D if split."""
    first, *rest = cores[:-1]
    flat = first.flatten(0, -2)
    if weighting is not None:
        flat = flat * weighting.rows.sqrt()[:, None]
    found = [torch.ones(1).double(), torch.linalg.vector_norm(flat, dim=0).square()]
    seen = flat
    for core in rest:
        gram = flat.mT @ seen
        flat = core.flatten(1)
        seen = (gram @ flat).reshape(-1, core.shape[-1])
        flat = flat.reshape(seen.shape)
        found.append((seen * flat).sum(0))
    return found


def _norms_after(cores: list[Tensor], weighting: Weighting | None) -> list[Tensor]:
    """The squared norm of each component of the part after each core but the last; C if split."""
    *rest, last = cores[1:]
    flat = last.flatten(1)
    seen = flat if weighting is None else flat @ weighting.moment
    found = [(seen * flat).sum(1)]
    for core in reversed(rest):
        gram = seen @ flat.mT
        flat = core.flatten(1)
        seen = (core @ gram).flatten(1)
        found.append((seen * flat).sum(1))
    return found[::-1]
