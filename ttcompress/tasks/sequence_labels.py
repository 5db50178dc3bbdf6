"""The tasks `tagger` and `classifier`: label each token, or each sequence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ttcompress.errors import RecipeError
from ttcompress.layers.recurrent_model import POOLINGS, Chain, Pooling
from ttcompress.layers.stacks import NONLINEARITIES, Nonlinearity
from ttcompress.layers.structure import Structure
from ttcompress.tasks import metrics
from ttcompress.tasks.architecture import read_classifying_chain
from ttcompress.tasks.data_files import DataFiles, check_choice, check_positive
from ttcompress.tasks.label_files import Example, read_classified, read_tagged
from ttcompress.tasks.protocol import Metric
from ttcompress.tasks.recurrent_task import PADDING, Batch, RecurrentTask, generator_of
from ttcompress.tasks.vocabulary import TOKENS, Indices, Vocabulary, find_labels, find_vocabulary

ACCURACY = Metric("accuracy", higher_is_better=True)
MACRO_F1 = Metric("macro_f1", higher_is_better=True)


@dataclass(frozen=True, eq=False)
class Encoded:
    """One sequence as indices, (time,), and its targets: (time,), or () for one label in all."""

    inputs: Tensor
    targets: Tensor


@dataclass(frozen=True)
class Coder:
    """Turns tokens and labels into a model's indices."""

    task: str
    vocabulary: Vocabulary
    labels: Indices

    def encode(self, examples: Sequence[Example], pooled: bool = False) -> list[Encoded]:
        """Encode with a target for each token, or one for each sequence if the model pools."""
        # All at once: the share of unknown tokens is judged over the whole data.
        tokens = [token for example in examples for token in example.tokens]
        indices = torch.tensor(self.vocabulary.encode(tokens, f"task {self.task}: the data"))
        inputs = torch.split(indices, [len(example.tokens) for example in examples])
        targets = [list(map(self._label, example.labels)) for example in examples]
        return [
            Encoded(sequence, torch.tensor(labels[0] if pooled else labels))
            for sequence, labels in zip(inputs, targets, strict=True)
        ]

    def _label(self, label: str) -> int:
        if label not in self.labels:
            known = ", ".join(list(self.labels)[:8]) + (", ..." if len(self.labels) > 8 else "")
            raise RecipeError(
                f"task {self.task}: the data has the label {label!r}, which is not one of the "
                f"model's {len(self.labels)} ({known}). Correct the data, or give the model's "
                "labels in the order of its outputs: `labels: [A, B]`."
            )
        return self.labels[label]


class LabelTask(RecurrentTask):
    """Labels sequences: each token, or the whole if the model pools.

    The arguments are those of its base; data are lists of `Encoded`.
    """

    metrics: tuple[Metric, ...] = (ACCURACY, MACRO_F1)

    def _prepare(self, data: list[Encoded], use: str) -> list[Encoded]:
        if not data:
            raise RecipeError(
                f"task {self.name}: there are 0 sequences to {use}, but at least 1 is needed. "
                "Give more data."
            )
        return data

    @property
    def batches_per_epoch(self) -> int:
        """Full batches, and one with the rest."""
        return -(-len(self._train) // self._batch)

    def train_batches(self, epoch: int, seed: int) -> Iterator[Batch]:
        """All sequences in random order."""
        order = torch.randperm(len(self._train), generator=generator_of(epoch, seed))
        return self._batches([self._train[k] for k in order.tolist()])

    def held_out_batches(self) -> Iterator[Batch]:
        """The held-out sequences in their order."""
        return self._batches(self._held_out)

    def _batches(self, examples: Sequence[Encoded]) -> Iterator[Batch]:
        """Batches, padded where lengths differ."""
        for start in range(0, len(examples), self._batch):
            together = examples[start : start + self._batch]
            inputs = [example.inputs for example in together]
            targets = [example.targets for example in together]
            lengths = torch.tensor(list(map(len, inputs)))
            yield Batch(
                pad_sequence(inputs, batch_first=True),
                pad_sequence(targets, True, PADDING) if targets[0].dim() else torch.stack(targets),
                None if bool((lengths == lengths[0]).all()) else lengths,
            )

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
        vocabulary: a file, if the checkpoint holds no vocabulary.
        unknown: the entry for tokens outside the vocabulary, unless called `<unk>` or similar.
        labels: a list in the order of the model's outputs, or a file, if the checkpoint holds
            none; by default the data's labels are numbers.
        label_column: the number of the labels' column, counted from 1; by default the last.
        batch: sequences in a batch.
        nonlinearity: of RNNs, "tanh" or "relu"; a checkpoint does not say.

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
        label_column: int | None = None,
        batch: int = 32,
        nonlinearity: Nonlinearity = "tanh",
    ) -> None:
        check_positive(
            self.name, batch=batch, label_column=2 if label_column is None else label_column
        )
        check_choice(self.name, "nonlinearity", nonlinearity, NONLINEARITIES)
        files = DataFiles(self.name, "data", data, train, valid)
        chain, coder = _read_model(self.name, structure, vocabulary, unknown, labels)
        read = partial(read_tagged, self.name, label_column)
        super().__init__(
            chain,
            train=lambda: coder.encode(files.read_train(read)),
            held_out=lambda: coder.encode(files.read_held_out(read)),
            batch=batch,
            nonlinearity=nonlinearity,
        )


class Classifier(LabelTask):
    """The task `classifier`: a label for each sequence; the structure is read from the checkpoint.

    Args:
        structure: of the model.
        data, train, valid, vocabulary, unknown, labels, batch, nonlinearity: as for `Tagger`.
        text_column, label_column: the names of two columns of a CSV or Parquet file.
        tokens: how a text is split, into "characters" or "words" (at spaces); by default what most
            of the vocabulary's entries are.
        pooling: "last" takes each direction's last step, "mean" and "max" are over the steps.

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
        text_column: str | None = None,
        label_column: str | None = None,
        tokens: str | None = None,
        pooling: Pooling = "last",
        batch: int = 32,
        nonlinearity: Nonlinearity = "tanh",
    ) -> None:
        check_positive(self.name, batch=batch)
        check_choice(self.name, "nonlinearity", nonlinearity, NONLINEARITIES)
        check_choice(self.name, "pooling", pooling, POOLINGS)
        check_choice(self.name, "tokens", tokens or "words", TOKENS)
        if (text_column is None) is not (label_column is None):
            given, other = ("text", "label") if label_column is None else ("label", "text")
            raise RecipeError(
                f"task {self.name}: {given}_column is given, but not {other}_column. "
                "Name both, or neither."
            )
        files = DataFiles(self.name, "data", data, train, valid)
        chain, coder = _read_model(self.name, structure, vocabulary, unknown, labels)
        known = coder.vocabulary
        of_characters = known.is_of_characters if tokens is None else tokens == "characters"
        cut: Callable[[str], list[str]] = list if of_characters else str.split
        columns = None
        if text_column is not None and label_column is not None:
            columns = (str(text_column), str(label_column))
        read = partial(read_classified, self.name, cut, columns)
        super().__init__(
            chain,
            train=lambda: coder.encode(files.read_train(read), pooled=True),
            held_out=lambda: coder.encode(files.read_held_out(read), pooled=True),
            batch=batch,
            pooling=pooling,
            nonlinearity=nonlinearity,
        )


def _read_model(
    task: str, structure: Structure, vocabulary: str | None, unknown: str | None, labels: Any
) -> tuple[Chain, Coder]:
    chain, content = read_classifying_chain(structure, task), structure.content
    known = find_vocabulary(content, chain.symbols, task, vocabulary, unknown)
    return chain, Coder(task, known, find_labels(content, chain.classes, task, labels))
