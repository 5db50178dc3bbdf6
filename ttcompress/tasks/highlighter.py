"""The task `highlighter`: labels each character of the source of Python's standard library."""

from __future__ import annotations

import torch

from ttcompress.errors import RecipeError
from ttcompress.layers.structure import Structure
from ttcompress.samples import highlighting
from ttcompress.samples.highlighting import EVALUATED_WINDOWS, LABELS, WINDOW
from ttcompress.tasks.architecture import read_chain
from ttcompress.tasks.data_files import check_positive
from ttcompress.tasks.sequence_labels import Encoded, LabelTask
from ttcompress.tasks.vocabulary import find_labels, find_vocabulary


class Highlighter(LabelTask):
    """Labels characters of Python source: for the sample `highlighter`, or your own model.

    Args:
        structure: of the model; its vocabulary is in the checkpoint. Its labels are too, or
            they are `highlighting.LABELS` in that order.
        batch: windows in a batch.

    Raises:
        RecipeError: the structure, the labels or an option does not fit.
    """

    name = "highlighter"

    def __init__(self, structure: Structure, *, batch: int = 32) -> None:
        check_positive(self.name, batch=batch)
        chain = read_chain(structure, self.name)
        known = find_vocabulary(structure.content, chain.symbols, self.name)
        classes = _classes(structure, chain.classes, self.name)

        def windows(text: str, labels: bytes, count: int) -> list[Encoded]:
            return [
                Encoded(
                    torch.tensor(known.encode(window, "task highlighter: Python's library")),
                    classes[torch.frombuffer(bytearray(tags), dtype=torch.uint8).long()],
                )
                for window, tags in highlighting.windows(text, labels, count)
            ]

        def train() -> list[Encoded]:
            text, labels = highlighting.load("train")
            return windows(text, labels, len(text) // WINDOW)

        super().__init__(
            chain,
            train=train,
            held_out=lambda: windows(*highlighting.load("test"), EVALUATED_WINDOWS),
            batch=batch,
        )


def _classes(structure: Structure, classes: int, task: str) -> torch.Tensor:  # (labels,)
    """The model's index of each of `LABELS`."""
    if classes != len(LABELS):
        raise RecipeError(
            f"task {task}: the model has {classes} classes, but this task has {len(LABELS)} "
            f"labels: {', '.join(LABELS)}. Use the task tagger with your own data."
        )
    found = find_labels(structure.content, classes, task)
    if found.keys() == {str(index) for index in range(len(LABELS))}:
        return torch.arange(len(LABELS))
    if found.keys() != set(LABELS):
        raise RecipeError(
            f"task {task}: the model's labels are {', '.join(found)}, but this task's are "
            f"{', '.join(LABELS)}. Use the task tagger with your own data."
        )
    return torch.tensor([found[label] for label in LABELS])
