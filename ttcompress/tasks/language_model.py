"""The task `language-model`: predicts each symbol of a text from those before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ttcompress.errors import RecipeError
from ttcompress.layers.recurrent_model import Chain
from ttcompress.layers.stacks import NONLINEARITIES, Nonlinearity
from ttcompress.layers.structure import Structure
from ttcompress.tasks import metrics
from ttcompress.tasks.architecture import read_classifying_chain
from ttcompress.tasks.data_files import DataFiles, check_choice, check_positive, read_text
from ttcompress.tasks.protocol import Metric
from ttcompress.tasks.recurrent_task import Batch, RecurrentTask, generator_of
from ttcompress.tasks.vocabulary import TOKENS, find_vocabulary

END_OF_LINE = "<eos>"

LEAST_WINDOWS = 8
"""The fewest in a stream: each stream begins with an empty state, which makes predictions worse."""

HELD_OUT_STREAMS = 32
"""Parallel streams when measuring: fixed, so that the batch of a training changes no metric."""

BITS_PER_CHARACTER = Metric("bits_per_character", higher_is_better=False)
PERPLEXITY = Metric("perplexity", higher_is_better=False)


class SymbolTask(RecurrentTask):
    """Predicts the next symbol in two texts, one to train on and one held out.

    A text is cut into parallel streams, along which the model's state is carried from window to
    window, as in its training.

    Args:
        chain: the model.
        train: returns the symbols to train on; called when they are first needed.
        held_out: returns the symbols to measure on; the first one is not predicted.
        of_characters: whether symbols are characters; bits per character are then measured too.
        batch: streams in training; fewer if each would have less than `LEAST_WINDOWS` windows.
        steps: the length of a window.
        nonlinearity: of the stacks that are RNNs.
    """

    carries_state = True

    def __init__(
        self,
        chain: Chain,
        train: Callable[[], list[int]],
        held_out: Callable[[], list[int]],
        of_characters: bool,
        batch: int,
        steps: int,
        nonlinearity: Nonlinearity = "tanh",
    ) -> None:
        super().__init__(chain, train, held_out, batch, nonlinearity=nonlinearity)
        self.metrics = (BITS_PER_CHARACTER, PERPLEXITY) if of_characters else (PERPLEXITY,)
        self._steps = steps

    def _prepare(self, data: list[int], use: str) -> Tensor:
        if len(data) < 2:
            raise RecipeError(
                f"task {self.name}: there are {len(data)} symbols to {use}, but at least 2 are "
                "needed. Give a longer text."
            )
        return torch.tensor(data)

    @property
    def batches_per_epoch(self) -> int:
        """Windows along each stream."""
        length = (len(self._train) - 1) // self._streams(self._train, self._batch)
        return -(-length // self._steps)

    def train_batches(self, epoch: int, seed: int) -> Iterator[Batch]:
        """Windows of the whole text, starting from another place in each epoch."""
        start = int(torch.randint(len(self._train), (), generator=generator_of(epoch, seed)))
        return self._windows(self._train.roll(-start), self._batch)

    def held_out_batches(self) -> Iterator[Batch]:
        """Windows of the held-out text."""
        return self._windows(self._held_out, HELD_OUT_STREAMS)

    def _tally(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return metrics.nats(outputs, targets)

    def _figures(self, tally: Tensor, positions: int) -> dict[str, float]:
        figures = {
            BITS_PER_CHARACTER.name: metrics.bits_per_character(tally, positions),
            PERPLEXITY.name: metrics.perplexity(tally, positions),
        }
        return {metric.name: figures[metric.name] for metric in self.metrics}

    def _streams(self, symbols: Tensor, batch: int) -> int:
        most = (len(symbols) - 1) // (LEAST_WINDOWS * self._steps)
        return max(1, min(batch, most))

    def _windows(self, symbols: Tensor, batch: int) -> Iterator[Batch]:
        streams = self._streams(symbols, batch)
        length = (len(symbols) - 1) // streams
        inputs, targets = (symbols[k : k + streams * length].view(streams, -1) for k in (0, 1))
        for start in range(0, length, self._steps):
            window = slice(start, start + self._steps)
            yield Batch(inputs[:, window], targets[:, window])


class LanguageModel(SymbolTask):
    """The task `language-model`: the structure is read from the checkpoint, the text from files.

    Args:
        structure: of the model.
        text: a file; its first 90 % is trained on, its last 10 % held out.
        train: a file to train on; with `valid`, instead of `text`.
        valid: a file to measure on.
        vocabulary: a file, if the checkpoint holds no vocabulary.
        unknown: the entry for symbols outside the vocabulary, unless called `<unk>` or similar.
        tokens: "characters" or "words"; by default what most of the vocabulary's entries are. Words
            are separated by spaces; a line ends with `<eos>` if the vocabulary has it.
        batch: parallel streams in training.
        steps: symbols from one update to the next, over which gradients are propagated.
        nonlinearity: of RNNs, "tanh" or "relu"; a checkpoint does not say.

    Raises:
        InputError: a file is missing.
        RecipeError: the structure, the vocabulary or an option does not fit.
    """

    name = "language-model"

    def __init__(
        self,
        structure: Structure,
        *,
        text: str | None = None,
        train: str | None = None,
        valid: str | None = None,
        vocabulary: str | None = None,
        unknown: str | None = None,
        tokens: str | None = None,
        batch: int = 32,
        steps: int = 64,
        nonlinearity: Nonlinearity = "tanh",
    ) -> None:
        check_positive(self.name, batch=batch, steps=steps)
        check_choice(self.name, "nonlinearity", nonlinearity, NONLINEARITIES)
        check_choice(self.name, "tokens", tokens or "words", TOKENS)
        files = DataFiles(self.name, "text", text, train, valid)
        chain = read_predicting_chain(structure, self.name)
        known = find_vocabulary(structure.content, chain.symbols, self.name, vocabulary, unknown)
        of_characters = known.is_of_characters if tokens is None else tokens == "characters"

        def read(path: str) -> list[int]:
            content = read_text(path, self.name)
            symbols = list(content)
            if not of_characters:
                end = [END_OF_LINE] if END_OF_LINE in known.indices else []
                symbols = [w for line in content.splitlines() for w in [*line.split(), *end]]
            return known.encode(symbols, f"task {self.name}: {path}")

        super().__init__(
            chain,
            train=lambda: files.read_train(read),
            held_out=lambda: files.read_held_out(read),
            of_characters=of_characters,
            batch=batch,
            steps=steps,
            nonlinearity=nonlinearity,
        )


def read_predicting_chain(structure: Structure, task: str) -> Chain:
    """Recognise a chain that can predict its own next input.

    Raises:
        RecipeError: the model is not a chain, sees the future, or has fewer outputs than inputs.
    """
    chain = read_classifying_chain(structure, task)
    seeing = next((stack for stack in chain.stacks if stack.bidirectional), None)
    if seeing is not None:
        raise RecipeError(
            f"task {task}: {seeing.prefix}* is bidirectional, so it sees what it should predict. "
            "Use the task tagger or classifier, or write your own: --task file.py:Name."
        )
    if chain.classes < chain.symbols:
        raise RecipeError(
            f"task {task}: the model takes {chain.symbols} symbols, but {chain.linear} gives "
            f"{chain.classes} outputs, so it cannot predict every symbol. "
            "Use the task tagger or classifier, or write your own: --task file.py:Name."
        )
    return chain
