"""The base class of the built-in tasks: model, outputs, loss and metrics over a chain of layers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ttcompress.layers.evaluating import evaluating
from ttcompress.layers.recurrent_model import Chain, Pooling, RecurrentModel
from ttcompress.layers.stacks import Nonlinearity
from ttcompress.tasks.protocol import Metric, OutputKind, State, detach

TRAIN_ON, MEASURE_ON = "train on", "measure on"
"""What data are for, in messages."""

PADDING = -100
"""The target of padding; torch's cross entropy ignores it."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Sequences in parallel, on the CPU. `lengths` is None if all of them are full.

    Of symbols and classes, int64: `inputs` is (batch, time), `targets` (batch, time) or, with one
    for each sequence, (batch,). Of values, floats: `inputs` is (batch, time, features), `targets`
    (positions, columns). `lengths` is (batch,), int64.
    """

    inputs: Tensor
    targets: Tensor
    lengths: Tensor | None = None

    @property
    def real_targets(self) -> Tensor:  # (positions,), or (positions, columns) of values
        """The targets without padding."""
        values = self.targets.is_floating_point()
        return self.targets if values else self.targets[self.targets != PADDING]


class RecurrentTask(ABC):
    """A `Task` over a chain of layers; a subclass makes batches of data and counts what is right.

    Attributes:
        predicts: what the outputs are.
        chain: the model.
        takes_values: whether the inputs are values, and not symbols.
        carries_state: whether a batch continues where the one before ended.

    Args:
        chain: the model.
        train: returns the data to train on; called when they are first needed.
        held_out: returns the data to measure on.
        batch: sequences in a training batch.
        pooling: how a sequence becomes one output; None for an output at each step.
        nonlinearity: of the stacks that are RNNs.
    """

    name: str
    metrics: tuple[Metric, ...]
    predicts: ClassVar[OutputKind] = "classes"
    takes_values: ClassVar[bool] = False
    carries_state: ClassVar[bool] = False

    def __init__(
        self,
        chain: Chain,
        train: Callable[[], Any],
        held_out: Callable[[], Any],
        batch: int,
        pooling: Pooling | None = None,
        nonlinearity: Nonlinearity = "tanh",
    ) -> None:
        self.chain = chain
        self._read_train, self._read_held_out = train, held_out
        self._batch = batch
        self._pooling, self._nonlinearity = pooling, nonlinearity

    @cached_property
    def _train(self) -> Any:
        return self._prepare(self._read_train(), TRAIN_ON)

    @cached_property
    def _held_out(self) -> Any:
        return self._prepare(self._read_held_out(), MEASURE_ON)

    @abstractmethod
    def _prepare(self, data: Any, use: str) -> Any:
        """Convert the data to what batches are made of; refuse them if there are too few."""

    @property
    @abstractmethod
    def batches_per_epoch(self) -> int:
        """How many batches `train_batches` yields."""

    @abstractmethod
    def train_batches(self, epoch: int, seed: int) -> Iterator[Batch]:
        """The training data of one epoch."""

    @abstractmethod
    def held_out_batches(self) -> Iterable[Batch]:
        """What `evaluate` measures on, always the same."""

    @abstractmethod
    def _tally(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """A tensor that adds up from batch to batch."""

    @abstractmethod
    def _figures(self, tally: Tensor, positions: int) -> dict[str, float]:
        """The metrics, from the sum over all batches."""

    def build(self) -> nn.Module:
        """Build a dense model of the chain, with any values."""
        return RecurrentModel(self.chain, self._pooling, self._nonlinearity)

    def outputs(self, model: nn.Module, batch: Batch, state: State) -> tuple[Tensor, State]:
        """Outputs (positions, columns) of the real positions; the state after them, detached."""
        device = next(model.parameters()).device
        found, after = model(batch.inputs.to(device), state, batch.lengths)
        if batch.lengths is None:
            real = found.flatten(0, -2)
        else:
            real = found[(batch.targets != PADDING).to(device)]
        return real, detach(after) if self.carries_state else None

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The mean cross entropy in nats."""
        return functional.cross_entropy(outputs, batch.real_targets.to(outputs.device))

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Every metric on the held-out data."""
        tally, positions, state = torch.zeros(()), 0, None
        with evaluating(model):
            for batch in self.held_out_batches():
                outputs, state = self.outputs(model, batch, state)
                targets = batch.real_targets.to(outputs.device)
                tally = tally.to(outputs.device) + self._tally(outputs, targets)
                positions += len(targets)
        return self._figures(tally, positions)


def generator_of(epoch: int, seed: int) -> torch.Generator:
    """The random number generator of one epoch of a run."""
    return torch.Generator().manual_seed(seed * 1_000_003 + epoch)
