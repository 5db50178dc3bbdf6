"""Computes metrics of logits (bits per character, perplexity, accuracy, macro F1) and of values.

Each metric takes two steps, so that it works over any number of batches: a tensor to add up from
batch to batch (`nats`, `confusion`, `squared_error`, ...), and a number computed from the sum at
the end; for values, the sum over the positions divided by their number.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional


def nats(logits: Tensor, targets: Tensor) -> Tensor:
    """The information in `targets` under `logits`: the summed cross entropy, a float64 scalar.

    Args:
        logits: (..., classes), of any float type; the sum is taken in float64.
        targets: (...), class indices.
    """
    flat = logits.reshape(-1, logits.shape[-1]).double()
    return functional.cross_entropy(flat, targets.reshape(-1), reduction="sum")


def bits_per_character(total: Tensor, characters: int) -> float:
    """Bits per character, of `total` nats over that many characters; lower is better."""
    return total.item() / characters / math.log(2)


def perplexity(total: Tensor, symbols: int) -> float:
    """exp(nats per symbol): as uncertain as that many equal choices; lower is better.

    Infinite above 709 nats per symbol.
    """
    try:
        return math.exp(total.item() / symbols)
    except OverflowError:
        return math.inf


def confusion(logits: Tensor, targets: Tensor) -> Tensor:
    """How often each class (row) was predicted as each (column): (classes, classes), int64.

    Args:
        logits: (..., classes); the largest is the prediction.
        targets: (...), class indices.
    """
    classes = logits.shape[-1]
    pairs = targets.reshape(-1) * classes + logits.argmax(-1).reshape(-1)
    return torch.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def accuracy(counts: Tensor) -> float:
    """The share of right predictions in a confusion matrix; higher is better."""
    return (counts.trace() / counts.sum()).item()


def macro_f1(counts: Tensor) -> float:
    """The mean over classes of F1 = 2 right / (actual + predicted); higher is better.

    A class that neither occurs nor is predicted has no F1 and is left out of the mean.
    """
    claims = counts.sum(0) + counts.sum(1)
    seen = claims > 0
    return (2 * counts.diagonal()[seen] / claims[seen]).mean().item()


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean squared error of (positions, columns), summed over positions; lower is better."""
    return (outputs.double() - targets.double()).square().mean(1).sum()


def absolute_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean absolute error of (positions, columns), summed over positions; lower is better."""
    return (outputs.double() - targets.double()).abs().mean(1).sum()


def symmetric_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """sMAPE of (positions, columns), 0 to 200 %, summed over positions; lower is better.

    The mean of 100 |output - target| / ((|output| + |target|) / 2); 0 where both are 0.
    """
    outputs, targets = outputs.double(), targets.double()
    size = (outputs.abs() + targets.abs()) / 2
    errors = (outputs - targets).abs() / torch.where(size > 0, size, 1.0)
    return 100 * errors.mean(1).sum()
