"""What a task is: it knows how good a model is and how to train it.

`evaluate`, fine-tuning and distillation use these members and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

Batch = Any
"""A task's own: whatever its `train_batches` yields, its `outputs` and `loss` take."""

State = Any
"""A task's own: what goes on from batch to batch; None at the start, and where nothing does."""


@dataclass(frozen=True)
class Metric:
    """A figure of merit and its direction: a limit on a perplexity must not pass backwards."""

    name: str
    higher_is_better: bool


class Task(Protocol):
    """How good a model is, and how to train it.

    A class of your own needs no base class. It is built as `Name(structure, **options)`, with a
    `ttcompress.layers.structure.Structure` and the options of the recipe's `task:` block.

    Attributes:
        name: what reports call it.
        metrics: what `evaluate` returns, the counting one first.
    """

    name: str
    metrics: tuple[Metric, ...]

    @property
    def batches_per_epoch(self) -> int:
        """How many batches `train_batches` yields."""
        ...

    def build(self) -> nn.Module:
        """The dense model with any values; the keys of its state dict are the model's own names."""
        ...

    def train_batches(self, epoch: int, seed: int) -> Iterator[Batch]:
        """The training data of one epoch, on the CPU; the same for the same epoch and seed."""
        ...

    def outputs(self, model: nn.Module, batch: Batch, state: State) -> tuple[Tensor, State]:
        """Run the model, on the device that it is on.

        Args:
            model: what `build` made, or the same with compressed layers in it.
            batch: one of `train_batches`.
            state: what the batch before left, without its graph; None at an epoch's start.

        Returns:
            Logits (positions, classes), padding left out; and the state for the next batch.
        """
        ...

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """A scalar, the mean over positions, of the logits that `outputs` gave for `batch`."""
        ...

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Every metric on held-out data; deterministic, and the model is as it was afterwards."""
        ...


TaskFactory = Callable[..., Task]
"""A class or function that makes a task of a structure and options."""
