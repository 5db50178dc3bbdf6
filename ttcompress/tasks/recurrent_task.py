"""A chain and a subclass's data enter; the model, its logits, loss and metrics leave.

The part of a task that all built-in ones share.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ttcompress.layers.stacks import Nonlinearity
from ttcompress.tasks.chain import Chain
from ttcompress.tasks.protocol import Metric, State
from ttcompress.tasks.recurrent_model import Pooling, RecurrentModel

PADDING = -100
"""The target of a position that is none; torch's cross entropy leaves it out."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Sequences side by side. `lengths` is None where all of them are full.

    `inputs` is (batch, time), `targets` (batch, time) or, with one for each sequence, (batch,),
    `lengths` (batch,): all int64, on the CPU.
    """

    inputs: Tensor
    targets: Tensor
    lengths: Tensor | None = None

    @property
    def real_targets(self) -> Tensor:  # (positions,)
        """The targets without padding."""
        return self.targets[self.targets != PADDING]


class RecurrentTask(ABC):
    """A `Task` over a chain of layers; a subclass brings batches and counts what is right.

    Attributes:
        carries_state: whether a batch goes on where the one before ended.
    """

    name: str
    metrics: tuple[Metric, ...]
    carries_state: ClassVar[bool] = False

    def __init__(
        self, chain: Chain, pooling: Pooling | None = None, nonlinearity: Nonlinearity = "tanh"
    ) -> None:
        self._chain = chain
        self._pooling = pooling
        self._nonlinearity = nonlinearity

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
        """What adds up from batch to batch."""

    @abstractmethod
    def _figures(self, tally: Tensor, positions: int) -> dict[str, float]:
        """The metrics, from the sum over all batches."""

    def build(self) -> nn.Module:
        """A dense model of the chain, with any values."""
        return RecurrentModel(self._chain, self._pooling, self._nonlinearity)

    def outputs(self, model: nn.Module, batch: Batch, state: State) -> tuple[Tensor, State]:
        """Logits (positions, classes) of the real positions; the state after them, detached."""
        device = next(model.parameters()).device
        logits, after = model(batch.inputs.to(device), state, batch.lengths)
        if batch.lengths is None:
            real = logits.flatten(0, -2)
        else:
            real = logits[(batch.targets != PADDING).to(device)]
        return real, _detached(after) if self.carries_state else None

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The mean cross entropy in nats."""
        return functional.cross_entropy(outputs, batch.real_targets.to(outputs.device))

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Every metric on the held-out data."""
        tally, positions, state = torch.zeros(()), 0, None
        with measuring(model):
            for batch in self.held_out_batches():
                logits, state = self.outputs(model, batch, state)
                targets = batch.real_targets.to(logits.device)
                tally = tally.to(logits.device) + self._tally(logits, targets)
                positions += len(targets)
        return self._figures(tally, positions)


@contextmanager
def measuring(model: nn.Module) -> Iterator[None]:
    """Without dropout and without gradients; afterwards the model is in the mode it was in."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


def generator_of(epoch: int, seed: int) -> torch.Generator:
    """The random numbers of one epoch of a run."""
    return torch.Generator().manual_seed(seed * 1_000_003 + epoch)


def _detached(state: Any) -> Any:
    if isinstance(state, Tensor):
        return state.detach()
    return tuple(_detached(part) for part in state)
