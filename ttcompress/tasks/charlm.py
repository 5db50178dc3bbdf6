"""The task `charlm`: predicts characters of the documentation that comes with Python."""

from __future__ import annotations

from ttcompress.layers.structure import Structure
from ttcompress.samples import corpus
from ttcompress.samples.corpus import Split
from ttcompress.tasks.data_files import check_positive
from ttcompress.tasks.language_model import SymbolTask, read_predicting_chain
from ttcompress.tasks.vocabulary import find_vocabulary

STREAMS, WINDOW = 16, 64
"""Fewer and shorter than the sample was trained with: 3 epochs are then 5,205 updates instead of
1,302, and a fine-tuning at factor 32 ends nearly 1 % lower.
"""


class CharLM(SymbolTask):
    """Predicts characters of Python's documentation: for the sample `charlm`, or your own model.

    Args:
        structure: of the model; its vocabulary is in the checkpoint.
        batch: parallel streams in training; it does not affect the metrics.
        steps: characters from one update to the next.

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
