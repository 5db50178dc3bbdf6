"""What the words in the page's tables and large figures mean: `explain`."""

from __future__ import annotations

from collections.abc import Iterable

MEANINGS = {
    "file": "The size of the compressed file, and how many times smaller it is than the "
    "original's without what was left out.",
    "multiply-adds": "Multiplications for one time step of one sequence. Few bits save bytes; only "
    "low ranks save multiplications, and with them time.",
    "largest error": "The relative error of the weight that lost most.",
    "drift": "How far the outputs of a recurrent layer move from the original's on the same "
    "inputs: the norm of the difference, relative to the norm before. Above 0.5 it "
    "usually costs accuracy.",
    "limits": "What the recipe or the command asked the result to keep to.",
    "format": "mps and mpo are tensor trains; dense is the whole matrix in fewer bits.",
    "modes": "The factors into which a train splits the rows and the columns.",
    "ranks": "The sizes between neighbouring cores of a train: lower is smaller and loses more.",
    "store": "How values are written: coded is entropy-coded integers, int8 is 8 bits a value.",
    "error": "The norm of what a weight lost, rounding included, relative to its norm. 0 is "
    "nothing, 1 is all of it.",
    "worst row": "The same for the row of the matrix that lost most. Rows that matter little to "
    "the outputs may lose much.",
    "worst element": "The largest error of a single value, relative to the weight's largest value.",
    "input": "The errors of the rows of each gate of the layer.",
    "reset": "The errors of the rows of each gate of the layer.",
    "drop": "How much the metric became worse, in its own unit.",
    "original, trained as long": "The original trained for as many steps as the compressed model, "
    "so that only the compression differs.",
    "scope": "weights are those that share the budget; model is every tensor.",
    "ms": "The median of repeated runs on this machine.",
    "quartiles": "Half of the runs took between these times.",
    "speed-up": "Over the fastest dense run at the same batch size, int8 included.",
    "factor": "Bytes of the decomposed weights before, over bytes after.",
    "weights": "Bytes of the decomposed weights before, over bytes after.",
    "metric": "The task's counting metric.",
}


def explain(words: Iterable[str]) -> list[tuple[str, str]]:
    """The words that need it, each with its meaning.

    >>> explain(["weight", "limits"])
    [('limits', 'What the recipe or the command asked the result to keep to.')]
    """
    return [(word, MEANINGS[word]) for word in words if word in MEANINGS]
