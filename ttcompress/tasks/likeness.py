"""How closely a model's outputs follow the original's: as losses to train on, and as metrics."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax, logsigmoid

from ttcompress.tasks.protocol import Metric, OutputKind

DIVERGENCE = Metric("divergence", higher_is_better=False)
AGREEMENT = Metric("agreement", higher_is_better=True)
OUTPUT_ERROR = Metric("output_error", higher_is_better=False)


def likeness_metrics(kind: OutputKind) -> tuple[Metric, ...]:
    """The metrics for a kind of outputs, the counting one first."""
    return (OUTPUT_ERROR,) if kind == "values" else (DIVERGENCE, AGREEMENT)


def class_divergence(outputs: Tensor, original: Tensor, temperature: float) -> Tensor:
    """The mean KL divergence of softmax(original) from softmax(outputs), (positions, classes).

    Classes that the original rules out (-inf) add nothing. Times temperature^2, which restores the
    size of the gradients, since they fall with its square.
    """
    own = log_softmax(outputs / temperature, dim=-1)
    wanted = log_softmax(original / temperature, dim=-1)
    impossible = wanted.isneginf()  # p log p is 0 there, but 0 * inf in floating point is not
    own, wanted = (values.masked_fill(impossible, 0.0) for values in (own, wanted))
    return kl_div(own, wanted, log_target=True, reduction="batchmean") * temperature**2


def binary_divergence(outputs: Tensor, original: Tensor, temperature: float) -> Tensor:
    """The mean KL divergence of sigmoid(original) from sigmoid(outputs), (positions, questions).

    A mean over positions and questions, as binary cross entropy is.
    """
    own, wanted = outputs / temperature, original / temperature
    yes = wanted.sigmoid() * (logsigmoid(wanted) - logsigmoid(own))
    no = (-wanted).sigmoid() * (logsigmoid(-wanted) - logsigmoid(-own))
    return (yes + no).mean() * temperature**2


def squared_error(outputs: Tensor, original: Tensor, units: Tensor) -> Tensor:
    """The mean squared error of (positions, features), each feature in its unit, (features,)."""
    return ((outputs - original).square() / units).mean()


class Likeness:
    """Adds up over batches how far a model's outputs are from the original's.

    `divergence` is the mean Kullback-Leibler divergence from the original's probabilities, in bits
    a position; `agreement` the fraction of positions where both decide alike; `output_error` the
    root mean squared error over the original's standard deviation.
    """

    def __init__(self, kind: OutputKind) -> None:
        self._kind = kind
        self._count = 0
        self._sums = torch.zeros(2, dtype=torch.float64)
        self._moments = torch.zeros(2, dtype=torch.float64)  # of the original: sum, sum of squares
        self._values = 0

    def add(self, outputs: Tensor, original: Tensor) -> None:  # (positions, columns) each
        """Add a batch."""
        ours, theirs = outputs.double().cpu(), original.double().cpu()
        self._count += len(ours)
        if self._kind == "values":
            self._sums[0] += (ours - theirs).square().sum()
            self._moments += torch.stack([theirs.sum(), theirs.square().sum()])
            self._values += theirs.numel()
            return
        if self._kind == "classes":
            gap = class_divergence(ours, theirs, 1.0) * len(ours)
            alike = (ours.argmax(-1) == theirs.argmax(-1)).double().sum()
        else:
            gap = binary_divergence(ours, theirs, 1.0) * len(ours)
            alike = ((ours > 0) == (theirs > 0)).double().mean(-1).sum()
        self._sums += torch.stack([gap, alike])

    def figures(self) -> dict[str, float]:
        """The metrics by name."""
        if self._kind == "values":
            mean, square = (float(x) / max(self._values, 1) for x in self._moments)
            spread = math.sqrt(max(square - mean * mean, 0.0)) or 1.0
            error = math.sqrt(float(self._sums[0]) / max(self._values, 1)) / spread
            return {OUTPUT_ERROR.name: error}
        gap, alike = (float(x) / max(self._count, 1) for x in self._sums)
        return {DIVERGENCE.name: max(gap, 0.0) / math.log(2), AGREEMENT.name: alike}
