"""The task `charlm`: a language model of the documentation inside this Python."""

from __future__ import annotations

from ttcompress.layers.structure import Structure
from ttcompress.samples import corpus
from ttcompress.samples.corpus import Split
from ttcompress.tasks.data_files import check_positive
from ttcompress.tasks.language_model import SymbolTask, read_predicting_chain
from ttcompress.tasks.vocabulary import find_vocabulary

STREAMS, WINDOW = 16, 64
"""Fewer and shorter than the sample was trained with: 3 epochs are then 5,205 updates in place of
1,302, and a fine-tuning at factor 32 ends nearly 1 % lower.
"""


class CharLM(SymbolTask):
    """Characters of the documentation inside Python: the sample `charlm`, or a model of your own.

    Args:
        structure: of the model; its vocabulary is in the checkpoint.
        batch: streams side by side in training; what is measured does not depend on it.
        steps: characters between two updates.

    Raises:
        RecipeError: the structure or an option does not fit.
    """

    name = "charlm"

    def __init__(self, structure: Structure, *, batch: int = STREAMS, steps: int = WINDOW) -> None:
        check_positive(self.name, batch=batch, steps=steps)
        chain = read_predicting_chain(structure, self.name)
        known = find_vocabulary(structure.content, chain.symbols, self.name)

        def symbols(split: Split) -> list[int]:
            place = f"task charlm: Python's documentation, {split}"
            return known.encode(list(corpus.load(split)), place)

        super().__init__(
            chain,
            train=lambda: symbols("train"),
            held_out=lambda: symbols("test")[: corpus.EVALUATED_CHARACTERS + 1],
            of_characters=True,
            batch=batch,
            steps=steps,
        )
