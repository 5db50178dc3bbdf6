import pytest
from torch import nn

from ttcompress.errors import RecipeError
from ttcompress.samples import highlighting
from ttcompress.samples.highlighting import LABELS
from ttcompress.tasks.highlighter import Highlighter

SOURCE = "if x: # no\n" * 200
VOCABULARY = {symbol: k for k, symbol in enumerate(sorted(set(SOURCE)))}


def model(classes: int = len(LABELS)) -> nn.Module:
    layers = {"e": nn.Embedding(len(VOCABULARY), 3), "r": nn.GRU(3, 4), "d": nn.Linear(4, classes)}
    return nn.ModuleDict(layers)


@pytest.mark.parametrize(
    "content", [{}, {"labels": list(LABELS)}, {"label2id": {x: k for k, x in enumerate(LABELS)}}]
)
def test_without_labels_of_its_own_a_model_has_those_here(describe, monkeypatch, content):
    monkeypatch.setattr(highlighting, "load", lambda split: (SOURCE, highlighting.label(SOURCE)))
    task = Highlighter(describe(model(), vocab=VOCABULARY, **content))
    first = next(task.train_batches(0, 0)).targets[0]
    assert bytes(first.tolist()) in highlighting.label(SOURCE)


def test_a_model_with_its_labels_in_another_order_is_right_in_that_order(describe, monkeypatch):
    monkeypatch.setattr(highlighting, "load", lambda split: (SOURCE, highlighting.label(SOURCE)))
    task = Highlighter(describe(model(), vocab=VOCABULARY, labels=list(LABELS[::-1])))
    first = next(task.train_batches(0, 0)).targets[0]
    assert bytes((6 - first).tolist()) in highlighting.label(SOURCE)


def test_other_labels_are_told(describe):
    with pytest.raises(RecipeError, match="the model has 3 classes, but this task has 7 labels"):
        Highlighter(describe(model(3), vocab=VOCABULARY))
    with pytest.raises(
        RecipeError, match="the model's labels are A, B, C, D, E, F, G, but this task's are"
    ):
        Highlighter(describe(model(), vocab=VOCABULARY, labels=list("ABCDEFG")))
