"""The task `highlighter`: a structure and this Python's library enter, a tagger leaves."""

from __future__ import annotations

import torch

from ttcompress.errors import RecipeError
from ttcompress.samples import highlighting
from ttcompress.samples.highlighting import EVALUATED_WINDOWS, LABELS, WINDOW
from ttcompress.tasks.chain import read_chain
from ttcompress.tasks.sequence_labels import Encoded, LabelTask
from ttcompress.tasks.sources import require_positive
from ttcompress.tasks.structure import Structure
from ttcompress.tasks.vocabulary import Vocabulary, find_labels, find_vocabulary


class Highlighter(LabelTask):
    """Characters of Python source: the sample `highlighter`, or a model of your own.

    Args:
        structure: of the model; its vocabulary is in the checkpoint. Labels too, or they are those
            of `highlighting.LABELS`, in that order.
        batch: windows side by side.

    Raises:
        RecipeError: the structure, the labels or an option does not fit.
    """

    name = "highlighter"

    def __init__(self, structure: Structure, *, batch: int = 32) -> None:
        require_positive(self.name, batch=batch)
        chain = read_chain(structure, self.name)
        known = find_vocabulary(structure.content, chain.symbols, self.name)
        classes = _classes(structure, chain.classes, self.name)
        super().__init__(
            chain,
            train=lambda: _windows(known, classes, *highlighting.load("train")),
            held_out=lambda: _windows(
                known, classes, *highlighting.load("test"), count=EVALUATED_WINDOWS
            ),
            batch=batch,
        )


def _classes(structure: Structure, classes: int, task: str) -> torch.Tensor:  # (labels,)
    """The model's index of each of `LABELS`."""
    if classes != len(LABELS):
        raise RecipeError(
            f"task {task}: the model has {classes} classes, and there are {len(LABELS)} labels "
            f"here: {', '.join(LABELS)}. Take the task tagger with your own data."
        )
    found = find_labels(structure.content, classes, task)
    if found.keys() == {str(index) for index in range(len(LABELS))}:
        return torch.arange(len(LABELS))
    if found.keys() != set(LABELS):
        raise RecipeError(
            f"task {task}: the model's labels are {', '.join(found)}, and those here are "
            f"{', '.join(LABELS)}. Take the task tagger with your own data."
        )
    return torch.tensor([found[label] for label in LABELS])


def _windows(
    known: Vocabulary, classes: torch.Tensor, text: str, labels: bytes, count: int | None = None
) -> list[Encoded]:
    """Whole windows of the text, all of them or `count` from all over it."""
    wanted = len(text) // WINDOW if count is None else count
    cut = highlighting.windows(text, labels, wanted)
    place = "task highlighter: Python's library"
    return [
        Encoded(
            torch.tensor(known.encode(window, place)),
            classes[torch.frombuffer(bytearray(tags), dtype=torch.uint8).long()],
        )
        for window, tags in cut
    ]
