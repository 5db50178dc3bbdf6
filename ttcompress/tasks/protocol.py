"""The interface of a task: what measures how good a model is and knows how to train it.

Evaluation, fine-tuning and distillation use only these members.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

Batch = Any
"""Of the task's choice: what its `train_batches` yields and its `outputs` and `loss` take."""

State = Any
"""Of the task's choice: what is carried from batch to batch; None at the start or if stateless."""


@dataclass(frozen=True)
class Metric:
    """A figure of merit and its direction, so that a limit on perplexity is not read backwards."""

    name: str
    higher_is_better: bool


class Task(Protocol):
    """Measures how good a model is, and knows how to train it.

    Your own class needs no base class. It is built as `Name(structure, **options)`, with a
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
        """Build the dense model with any values; its state dict has the model's own names."""
        ...

    def train_batches(self, epoch: int, seed: int) -> Iterator[Batch]:
        """The training data of one epoch, on the CPU; the same for the same epoch and seed."""
        ...

    def outputs(self, model: nn.Module, batch: Batch, state: State) -> tuple[Tensor, State]:
        """Run the model, on its own device.

        Args:
            model: what `build` made, perhaps with compressed layers in it.
            batch: one of `train_batches`.
            state: what the previous batch returned, detached; None at the start of an epoch.

        Returns:
            Logits (positions, classes) without padding, and the state for the next batch.
        """
        ...

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """A scalar: the mean loss over positions of the logits that `outputs` gave for `batch`."""
        ...

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Every metric on held-out data; deterministic, and leaves the model unchanged."""
        ...


TaskFactory = Callable[..., Task]
"""A class or function that makes a task from a structure and options."""
