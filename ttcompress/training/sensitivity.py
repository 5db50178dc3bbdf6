"""Measures how much the outputs of a model depend on each of its weights: `measure_sensitivity`.

It is the Fisher information of the weights' values. Answers that the model could have given are
drawn from its own predictions, and the distance to them is differentiated: the mean square of that
derivative is the curvature of the distance (Martens 2020, J. Mach. Learn. Res. 21, 146), so that
an error raises the distance by half the Fisher information times its square. Neither labels nor the
model's own mistakes play a part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from ttcompress.model.weights import Weight
from ttcompress.recipe import Finetune
from ttcompress.system.progress import Progress, silent
from ttcompress.tasks.protocol import Batch, Task, name_outputs, unname_outputs
from ttcompress.training.distillation import Distance, Distillation, make_distillation

BATCHES = 16
"""At most."""

SURE = 30.0
"""The logit of a drawn yes: its probability is 1 in float32."""


def measure_sensitivity(
    task: Task,
    dense: nn.Module,
    weights: Sequence[Weight],
    seed: int = 0,
    progress: Progress = silent,
) -> dict[str, float]:
    """The mean square, over positions and over a weight's values, of the outputs' derivative.

    Args:
        task: gives the batches and runs the model on them.
        dense: what `load_model` made of the original; it is put into evaluation mode.
        weights: those to measure; what does not change the outputs is left out.
        seed: of the order of the batches and of the answers.
        progress: receives what is being done.

    Raises:
        RecipeError: the task does not say what its outputs are, or breaks its contract.
        TrainingError: the outputs are not finite.
    """
    own = dict(dense.eval().named_parameters())
    places = {w: own[name].requires_grad_() for w in weights for name in w.names if name in own}
    distillation = make_distillation(task, dense, Finetune(distill=1.0, temperature=1.0), seed)
    random = torch.Generator().manual_seed(seed)
    batches = list(islice(task.train_batches(0, seed), BATCHES))
    spreads = {} if distillation.own is None else _measure_spreads(task, dense, batches)
    sums, positions, state = dict.fromkeys(places, 0.0), 0, None
    for done, batch in enumerate(batches):
        progress("sensitivity", done, len(batches))
        outputs, state = task.outputs(dense, batch, state)
        named = {name: one.float() for name, one in name_outputs(outputs).items()}
        loss = _distance_to_a_draw(distillation, named, batch, random, spreads)
        found = torch.autograd.grad(loss, list(places.values()), allow_unused=True)
        count = len(next(iter(named.values())))
        positions += count
        for weight, gradient in zip(places, found, strict=True):
            if gradient is not None:
                # Of a mean over positions: independent draws, so that their squares add up.
                sums[weight] += count**2 * float(gradient.to_dense().double().square().sum())
    progress("sensitivity", len(batches), len(batches))
    return {w.name: total / positions / w.params for w, total in sums.items() if total}


def _distance_to_a_draw(
    distillation: Distillation,
    outputs: dict[str, Tensor],
    batch: Batch,
    random: torch.Generator,
    spreads: Mapping[str, Tensor],  # variances of columns, for a distance of the task's own
) -> Tensor:
    """The distance to an answer drawn from the predictions, at each position by itself."""
    values = {name: one.detach() for name, one in outputs.items()}
    if distillation.own is not None:
        drawn = {name: _around(one, spreads[name], random) for name, one in values.items()}
        return distillation.own(unname_outputs(outputs), unname_outputs(drawn), batch)
    parts = []
    for name, distance in distillation.distances.items():
        drawn_one = _draw(values[name], distance, random)
        # Distances other than of classes are means over columns, each drawn by itself.
        columns = 1 if distance.kind == "classes" else values[name].shape[1]
        parts.append(columns**0.5 * distance.measure(outputs[name], drawn_one, 1.0))
    return torch.stack(parts).sum()


def _measure_spreads(
    task: Task, dense: nn.Module, batches: Sequence[Batch]
) -> dict[str, Tensor]:  # (columns,) each
    """The variance of each column of the outputs: over all batches, as one may be a position."""
    sums = dict[str, Tensor]()  # (3, columns): ones, values and squares
    state = None
    with torch.no_grad():
        for batch in batches:
            outputs, state = task.outputs(dense, batch, state)
            for name, one in name_outputs(outputs).items():
                wide = one.double()
                found = torch.stack([torch.ones_like(wide), wide, wide.square()]).sum(1)
                sums[name] = sums[name] + found if name in sums else found
    means = {
        name: (total / count, squares / count) for name, (count, total, squares) in sums.items()
    }
    return {name: (square - mean**2).clamp(min=0).float() for name, (mean, square) in means.items()}


def _draw(values: Tensor, distance: Distance, random: torch.Generator) -> Tensor:
    """Outputs that mean one answer: a class, yes or no, or values with the deviation of an error.

    The distance to values is minus the logarithm of a normal density of half the unit's variance.
    """
    match distance.kind:
        case "classes":
            drawn = torch.multinomial(values.softmax(1), 1, generator=random)[:, 0]
            return one_hot(drawn, values.shape[1]).to(values).log()
        case "binary":
            return SURE * (2 * torch.bernoulli(values.sigmoid(), generator=random) - 1)
        case _:
            assert distance.units is not None  # `make_distillation` measured them
            return _around(values, distance.units / 2, random)


def _around(values: Tensor, variance: Tensor, random: torch.Generator) -> Tensor:
    noise = torch.randn(values.shape, generator=random, dtype=values.dtype)
    return values + variance.sqrt() * noise
