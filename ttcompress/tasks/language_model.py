"""The task `language-model`: predicting each symbol of a text from those before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ttcompress.errors import RecipeError
from ttcompress.layers.recurrent_model import Chain
from ttcompress.layers.stacks import NONLINEARITIES, Nonlinearity
from ttcompress.layers.structure import Structure
from ttcompress.tasks import metrics
from ttcompress.tasks.architecture import read_chain
from ttcompress.tasks.data_files import DataFiles, check_choice, check_positive, read_text
from ttcompress.tasks.protocol import Metric
from ttcompress.tasks.recurrent_task import Batch, RecurrentTask, generator_of
from ttcompress.tasks.vocabulary import TOKENS, find_vocabulary

END_OF_LINE = "<eos>"

LEAST_WINDOWS = 8
"""Of a stream: each begins with an empty state, which a model is worse at."""

HELD_OUT_STREAMS = 32
"""Side by side where it is measured: fixed, so that the batch of a training moves no metric."""

BITS_PER_CHARACTER = Metric("bits_per_character", higher_is_better=False)
PERPLEXITY = Metric("perplexity", higher_is_better=False)


class SymbolTask(RecurrentTask):
    """Predicting the next symbol of two texts, one trained and one held out.

    The text is cut into parallel streams, and the model's state goes on along them from window to
    window, as it was trained.

    Args:
        chain: the model.
        train: gives the symbols to train on; called when they are first needed.
        held_out: gives the symbols to measure on; the first one is not predicted.
        of_characters: whether symbols are characters: then bits per character count.
        batch: streams of the training; fewer where each would have less than `LEAST_WINDOWS`
            windows.
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
                f"task {self.name}: {len(data)} symbols to {use}, and 2 are the least. "
                "Give a longer text."
            )
        return torch.tensor(data)

    @property
    def batches_per_epoch(self) -> int:
        """Windows along each stream."""
        length = (len(self._train) - 1) // self._streams(self._train, self._batch)
        return -(-length // self._steps)

    def train_batches(self, epoch: int, seed: int) -> Iterator[Batch]:
        """Windows of the whole text, each epoch from another place on."""
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
        text: a file; the first 90 % are trained on, the last 10 % held out.
        train: a file to train on; with `valid`, instead of `text`.
        valid: a file to measure on.
        vocabulary: a file, where the checkpoint holds no vocabulary.
        unknown: the entry for symbols outside the vocabulary, where it is not called `<unk>` or so.
        tokens: "characters" or "words"; by default what most of the vocabulary's entries are. Words
            stand between spaces, and a line ends in `<eos>` if the vocabulary has that.
        batch: streams side by side.
        steps: symbols between two updates, over which gradients go back.
        nonlinearity: of RNNs, "tanh" or "relu"; a checkpoint does not tell.

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
    """A chain that can predict its own next input.

    Raises:
        RecipeError: the model is no chain, sees the future, or has other outputs than inputs.
    """
    chain = read_chain(structure, task)
    seeing = next((stack for stack in chain.stacks if stack.bidirectional), None)
    if seeing is not None:
        raise RecipeError(
            f"task {task}: {seeing.prefix}* is bidirectional, so it sees what it would predict. "
            "Take the task tagger or classifier, or write one of your own: --task file.py:Name."
        )
    if chain.classes < chain.symbols:
        raise RecipeError(
            f"task {task}: the model takes {chain.symbols} symbols and {chain.linear} gives "
            f"{chain.classes} outputs, so it cannot predict every symbol. "
            "Take the task tagger or classifier, or write one of your own: --task file.py:Name."
        )
    return chain
