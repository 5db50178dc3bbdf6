"""A structure and labelled sequences enter; tasks that label tokens or whole sequences leave."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ttcompress.errors import RecipeError
from ttcompress.layers.stacks import NONLINEARITIES, Nonlinearity
from ttcompress.tasks import metrics
from ttcompress.tasks.chain import Chain, read_chain
from ttcompress.tasks.labelled import Example, read_classified, read_tagged
from ttcompress.tasks.protocol import Metric
from ttcompress.tasks.recurrent_model import POOLINGS, Pooling
from ttcompress.tasks.recurrent_task import PADDING, Batch, RecurrentTask, generator_of
from ttcompress.tasks.sources import Sources, require_choice, require_positive
from ttcompress.tasks.structure import Structure
from ttcompress.tasks.vocabulary import Indices, Vocabulary, find_labels, find_vocabulary

TOKENS = ("characters", "words")

ACCURACY = Metric("accuracy", higher_is_better=True)
MACRO_F1 = Metric("macro_f1", higher_is_better=True)


@dataclass(frozen=True, eq=False)
class Encoded:
    """One sequence in indices: (time,), and its targets, (time,) or () for one of all of it."""

    inputs: Tensor
    targets: Tensor


@dataclass(frozen=True)
class Coder:
    """What turns tokens and labels into a model's indices."""

    task: str
    vocabulary: Vocabulary
    labels: Indices

    def tagged(self, examples: Sequence[Example]) -> list[Encoded]:
        """A target for each token."""
        inputs = self._inputs(examples)
        return [
            Encoded(tokens, torch.tensor([self._label(label) for label in example.labels]))
            for tokens, example in zip(inputs, examples, strict=True)
        ]

    def classified(self, examples: Sequence[Example]) -> list[Encoded]:
        """One target for each sequence."""
        inputs = self._inputs(examples)
        return [
            Encoded(tokens, torch.tensor(self._label(example.labels[0])))
            for tokens, example in zip(inputs, examples, strict=True)
        ]

    def _inputs(self, examples: Sequence[Example]) -> list[Tensor]:
        """All at once: how much of the data is unknown can be told only of the whole."""
        tokens = [token for example in examples for token in example.tokens]
        indices = torch.tensor(self.vocabulary.encode(tokens, f"task {self.task}: the data"))
        return list(torch.split(indices, [len(example.tokens) for example in examples]))

    def _label(self, label: str) -> int:
        if label not in self.labels:
            known = ", ".join(list(self.labels)[:8]) + (", ..." if len(self.labels) > 8 else "")
            raise RecipeError(
                f"task {self.task}: the data has the label {label!r}, which is none of the "
                f"model's {len(self.labels)} ({known}). Correct the data, or give the model's "
                "labels in the order of its outputs: `labels: [A, B]`."
            )
        return self.labels[label]


class LabelTask(RecurrentTask):
    """Right labels for sequences: of each token, or of the whole where the model pools.

    Args:
        chain: the model.
        train: gives the sequences to train on; called when they are first needed.
        held_out: gives the sequences to measure on.
        batch: sequences side by side.
        pooling: how a sequence becomes one output; None for an output for each token.
        nonlinearity: of the stacks that are RNNs.
    """

    metrics: tuple[Metric, ...] = (ACCURACY, MACRO_F1)

    def __init__(
        self,
        chain: Chain,
        train: Callable[[], list[Encoded]],
        held_out: Callable[[], list[Encoded]],
        batch: int,
        pooling: Pooling | None = None,
        nonlinearity: Nonlinearity = "tanh",
    ) -> None:
        super().__init__(chain, pooling, nonlinearity)
        self._read_train, self._read_held_out = train, held_out
        self._batch = batch

    @cached_property
    def _train(self) -> list[Encoded]:
        return self._present(self._read_train(), "train on")

    @cached_property
    def _held_out(self) -> list[Encoded]:
        return self._present(self._read_held_out(), "measure on")

    @property
    def batches_per_epoch(self) -> int:
        """Full batches, and a last one with the rest."""
        return -(-len(self._train) // self._batch)

    def train_batches(self, epoch: int, seed: int) -> Iterator[Batch]:
        """All sequences in random order."""
        order = torch.randperm(len(self._train), generator=generator_of(epoch, seed))
        return self._batches([self._train[k] for k in order.tolist()])

    def held_out_batches(self) -> Iterator[Batch]:
        """The held-out sequences in their order."""
        return self._batches(self._held_out)

    def _present(self, examples: list[Encoded], use: str) -> list[Encoded]:
        if not examples:
            raise RecipeError(
                f"task {self.name}: 0 sequences to {use}, and 1 is the least. Give more data."
            )
        return examples

    def _batches(self, examples: Sequence[Encoded]) -> Iterator[Batch]:
        for start in range(0, len(examples), self._batch):
            yield _together(examples[start : start + self._batch])

    def _tally(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return metrics.confusion(outputs, targets)

    def _figures(self, tally: Tensor, positions: int) -> dict[str, float]:
        return {ACCURACY.name: metrics.accuracy(tally), MACRO_F1.name: metrics.macro_f1(tally)}


class Tagger(LabelTask):
    """The task `tagger`: a label for each token; the structure is read from the checkpoint.

    Args:
        structure: of the model.
        data: a file; the first 90 % of its sequences are trained on, the last 10 % held out.
        train: a file to train on; with `valid`, instead of `data`.
        valid: a file to measure on.
        vocabulary: a file, where the checkpoint holds no vocabulary.
        unknown: the entry for tokens outside the vocabulary, where it is not called `<unk>` or so.
        labels: a list in the order of the model's outputs, or a file, where the checkpoint holds
            none; by default the data's labels are numbers.
        batch: sequences side by side.
        nonlinearity: of RNNs, "tanh" or "relu"; a checkpoint does not tell.

    Raises:
        InputError: a file is missing.
        RecipeError: the structure, the vocabulary, the labels or an option does not fit.
    """

    name = "tagger"

    def __init__(
        self,
        structure: Structure,
        *,
        data: str | None = None,
        train: str | None = None,
        valid: str | None = None,
        vocabulary: str | None = None,
        unknown: str | None = None,
        labels: Any = None,
        batch: int = 32,
        nonlinearity: Nonlinearity = "tanh",
    ) -> None:
        require_positive(self.name, batch=batch)
        require_choice(self.name, "nonlinearity", nonlinearity, NONLINEARITIES)
        sources = Sources(self.name, "data", data, train, valid)
        chain = read_chain(structure, self.name)
        content = structure.content
        known = find_vocabulary(content, chain.symbols, self.name, vocabulary, unknown)
        coder = Coder(self.name, known, find_labels(content, chain.classes, self.name, labels))
        read = partial(read_tagged, self.name)
        super().__init__(
            chain,
            train=lambda: coder.tagged(sources.trained(read)),
            held_out=lambda: coder.tagged(sources.held_out(read)),
            batch=batch,
            nonlinearity=nonlinearity,
        )


class Classifier(LabelTask):
    """The task `classifier`: a label for each sequence; the structure is read from the checkpoint.

    Args:
        structure: of the model.
        data, train, valid, vocabulary, unknown, labels, batch, nonlinearity: as for `Tagger`.
        tokens: what a text is cut into, "characters" or "words" (between spaces); by default what
            most of the vocabulary's entries are.
        pooling: "last" is each direction's last step, "mean" and "max" are taken over the steps.

    Raises:
        InputError: a file is missing.
        RecipeError: the structure, the vocabulary, the labels or an option does not fit.
    """

    name = "classifier"

    def __init__(
        self,
        structure: Structure,
        *,
        data: str | None = None,
        train: str | None = None,
        valid: str | None = None,
        vocabulary: str | None = None,
        unknown: str | None = None,
        labels: Any = None,
        tokens: str | None = None,
        pooling: Pooling = "last",
        batch: int = 32,
        nonlinearity: Nonlinearity = "tanh",
    ) -> None:
        require_positive(self.name, batch=batch)
        require_choice(self.name, "nonlinearity", nonlinearity, NONLINEARITIES)
        require_choice(self.name, "pooling", pooling, POOLINGS)
        require_choice(self.name, "tokens", tokens or "words", TOKENS)
        sources = Sources(self.name, "data", data, train, valid)
        chain = read_chain(structure, self.name)
        content = structure.content
        known = find_vocabulary(content, chain.symbols, self.name, vocabulary, unknown)
        coder = Coder(self.name, known, find_labels(content, chain.classes, self.name, labels))
        in_characters = known.is_of_characters if tokens is None else tokens == "characters"
        read = partial(read_classified, self.name, list if in_characters else str.split)
        super().__init__(
            chain,
            train=lambda: coder.classified(sources.trained(read)),
            held_out=lambda: coder.classified(sources.held_out(read)),
            batch=batch,
            pooling=pooling,
            nonlinearity=nonlinearity,
        )


def _together(examples: Sequence[Encoded]) -> Batch:
    """A batch, padded where lengths differ."""
    lengths = torch.tensor([len(example.inputs) for example in examples])
    inputs = pad_sequence([example.inputs for example in examples], batch_first=True)
    targets = [example.targets for example in examples]
    return Batch(
        inputs,
        pad_sequence(targets, True, PADDING) if targets[0].dim() else torch.stack(targets),
        None if bool((lengths == lengths[0]).all()) else lengths,
    )
