"""The task `synthetic`: a language model writes the text that it is calibrated and trained on.

A model that takes symbols and predicts the next one carries its own data: embedding, recurrent
layers and linear layer are all in the checkpoint, so it can write. Where the loop does not close
(other inputs, other outputs, a reverse direction), the task refuses. Random symbols instead would
do harm: they lead to states that no real text reaches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ttcompress.errors import RecipeError
from ttcompress.layers.evaluating import evaluating
from ttcompress.layers.recurrent_model import RecurrentModel
from ttcompress.layers.structure import structure_of
from ttcompress.model.protocol import Model
from ttcompress.tasks.language_model import read_predicting_chain
from ttcompress.tasks.likeness import Likeness, likeness_metrics
from ttcompress.tasks.protocol import OutputKind, State, detach
from ttcompress.tasks.recurrent_task import generator_of
from ttcompress.tasks.vocabulary import Vocabulary, tables_in

WARM_UP = 32
"""Symbols that are written first and thrown away: the very first is drawn at random."""

WRITERS, PAGE = 256, 512
"""Sequences that are written side by side, which is much faster than one, and their length."""

STEPS = 64
"""Symbols from one update to the next."""

HELD_OUT = 16_384
"""Symbols that metrics are measured on."""


@dataclass(frozen=True, eq=False)
class Window:
    """Symbols (batch, time); `fresh` if they begin a page, so that no state is carried there."""

    symbols: Tensor
    fresh: bool


class Synthetic:
    """Compares a model with the original on text that the original wrote.

    Metrics are `divergence` and `agreement`: see `Likeness`.

    Args:
        model: the original.
        batch: sequences in a batch.
        steps: symbols from one update to the next.
        batches: how many in an epoch.

    Raises:
        RecipeError: the model cannot write its own input.
    """

    name = "synthetic"
    metrics = likeness_metrics("classes")
    predicts: OutputKind = "classes"
    labelled = False

    def __init__(
        self, model: Model, *, batch: int = 16, steps: int = STEPS, batches: int = 2_500
    ) -> None:
        structure = structure_of(model)
        self._chain = read_predicting_chain(structure, self.name)
        if self._chain.embedding is None:
            _check_characters(structure.content, self._chain.symbols, self.name)
        if unsure := next((s for s in self._chain.stacks if s.kind == "rnn"), None):
            raise RecipeError(
                f"task {self.name}: {unsure.prefix}* is a plain RNN, and its file does not say "
                "whether with tanh or relu. Use the task language-model with nonlinearity."
            )
        self._writer = self.build()
        self._writer.load_state_dict(model.state_dict())
        self._batch, self._steps, self.batches_per_epoch = batch, steps, batches

    def build(self) -> nn.Module:
        """Build a dense model of the chain, with any values."""
        return RecurrentModel(self._chain)

    def train_batches(self, epoch: int, seed: int) -> Iterator[Window]:
        """Freshly written text: page after page, each cut into windows of parallel sequences."""
        generator, left = generator_of(epoch, seed), self.batches_per_epoch
        while left:
            writers = min(WRITERS, self._batch * -(-left // max(PAGE // self._steps, 1)))
            page = self.write(writers, max(PAGE, self._steps), generator)
            for group in torch.split(page, self._batch):
                for k, symbols in enumerate(torch.split(group, self._steps, 1)):
                    yield Window(symbols, fresh=k == 0)
                    left -= 1
                    if not left:
                        return

    def write(self, count: int, length: int, generator: torch.Generator) -> Tensor:
        """Sample sequences (count, length) from the model, each symbol from its prediction.

        Raises:
            RecipeError: a prediction is not finite.
        """
        known = self._chain.symbols
        symbol, state = torch.randint(known, (count, 1), generator=generator), None
        written = []
        with evaluating(self._writer):
            for _ in range(WARM_UP + length):
                logits, state = self._writer(symbol, state)
                chances = logits[:, -1, :known].float().softmax(-1)
                if not bool(chances.isfinite().all()):
                    raise RecipeError(
                        f"task {self.name}: the model's predictions are not finite. "
                        "Check its weights with `ttcompress inspect`."
                    )
                symbol = torch.multinomial(chances, 1, generator=generator)
                written.append(symbol)
        return torch.cat(written[WARM_UP:], 1)

    def outputs(self, model: nn.Module, batch: Window, state: State) -> tuple[Tensor, State]:
        """Logits (positions, classes), and the state after them, detached."""
        device = next(model.parameters()).device
        logits, after = model(batch.symbols.to(device), None if batch.fresh else state)
        return logits.flatten(0, 1), detach(after)

    def loss(self, outputs: Tensor, batch: Window) -> Tensor:
        """There are no labels.

        Raises:
            RecipeError: always.
        """
        raise RecipeError(f"task {self.name}: has no labels. Train with `distill: 1`.")

    @cached_property
    def _held_out(self) -> tuple[Tensor, Tensor]:
        """Symbols (sequences, time), and the original's logits for them."""
        text = self.write(HELD_OUT // PAGE, PAGE, torch.Generator().manual_seed(2**62))
        with evaluating(self._writer):
            return text, self._writer(text)[0]

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Both metrics on text that is the same at every call and in no training."""
        text, wanted = self._held_out
        with evaluating(model):
            found, _ = model(text.to(next(model.parameters()).device))
        likeness = Likeness(self.predicts)
        likeness.add(found.flatten(0, 1), wanted.flatten(0, 1))
        return likeness.figures()


def _check_characters(content: Any, symbols: int, task: str) -> None:
    """Require the vocabulary of a model without embedding: its inputs are one-hot, or values.

    A forecaster of the same values that it takes has the same tensors.

    Raises:
        RecipeError: the checkpoint has no table of so many characters.
    """
    tables = [table for _, table in tables_in(content) if len(table) == symbols]
    if not any(Vocabulary(table, None).is_of_characters for table in tables):
        raise RecipeError(
            f"task {task}: the model has no embedding, and its file no vocabulary of {symbols} "
            "characters, so it may take values instead of symbols. Give data: --task, or recorded "
            "inputs with --data."
        )
