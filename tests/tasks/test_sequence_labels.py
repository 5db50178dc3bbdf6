import pytest
import torch
from torch import nn

from ttcompress.errors import RecipeError
from ttcompress.tasks.recurrent_task import PADDING
from ttcompress.tasks.sequence_labels import Classifier, Tagger

VOCABULARY = {"<unk>": 0, "a": 1, "b": 2, "c": 3}
LABELS = ["X", "Y"]


class Copying(nn.Module):
    """Predicts label 1 for every token `b` (a tagger), or where there is any (a classifier)."""

    def __init__(self, pooled: bool) -> None:
        super().__init__()
        self.pooled = pooled
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, inputs, state, lengths):
        found = (inputs == 2).float() * self.scale
        found = found.amax(1) if self.pooled else found
        return torch.stack([0.5 - found, found], -1), (None,)


def model(bidirectional: bool = True) -> nn.Module:
    return nn.ModuleDict(
        {
            "embed": nn.Embedding(4, 3),
            "rnn": nn.GRU(3, 5, bidirectional=bidirectional),
            "out": nn.Linear(5 * (1 + bidirectional), 2),
        }
    )


@pytest.fixture
def structure(describe):
    return describe(model(), vocab=VOCABULARY, labels=LABELS)


def test_a_tagger_is_right_as_often_as_it_is(structure, tmp_path):
    path = tmp_path / "valid"
    path.write_text("a X\nb Y\nb X\n\nc X\n\nzebra Y\nc X\n")
    task = Tagger(structure, valid=str(path))
    metrics = task.evaluate(Copying(pooled=False))
    # Right are a, the first b, both c; X: 3 right of 4 with 4 predicted, Y: 1 right of 2 with 2.
    assert metrics["accuracy"] == pytest.approx(4 / 6)
    assert metrics["macro_f1"] == pytest.approx((6 / 8 + 2 / 4) / 2)


def test_a_classifier_is_right_as_often_as_it_is(structure, tmp_path):
    path = tmp_path / "valid"
    path.write_text("a b c\tY\nabc\tY\nccc\tX\nb\tX\n")
    task = Classifier(structure, valid=str(path), pooling="max")
    assert task.evaluate(Copying(pooled=True))["accuracy"] == pytest.approx(3 / 4)


def test_batches_are_padded_and_know_their_lengths(structure, tmp_path):
    path = tmp_path / "valid"
    path.write_text("a X\nb Y\n\nc X\n\nb Y\n\nc Y\n")
    first, second = Tagger(structure, valid=str(path), batch=2).held_out_batches()
    assert first.inputs.tolist() == [[1, 2], [3, 0]]
    assert first.targets.tolist() == [[0, 1], [0, PADDING]]
    assert first.lengths.tolist() == [2, 1]
    assert first.real_targets.tolist() == [0, 1, 0]
    assert second.lengths is None


def test_batches_do_not_change_the_metrics(structure, tmp_path):
    path = tmp_path / "valid"
    path.write_text("a X\nb Y\nb X\n\nc X\n\na Y\nc X\nc X\nb Y\n\n" * 5)
    torch.manual_seed(0)
    built = Tagger(structure, valid=str(path)).build().double()
    alone, together = (
        Tagger(structure, valid=str(path), batch=batch).evaluate(built) for batch in (1, 32)
    )
    assert alone == together


@pytest.mark.parametrize(
    ("tokens", "indices"), [(None, [1, 2, 0, 3]), ("characters", [1, 2, 0, 3]), ("words", [0, 3])]
)
def test_texts_are_cut_as_the_vocabulary_is(structure, tmp_path, tokens, indices):
    path = tmp_path / "valid"
    path.write_text("ab c\tX\n")
    (batch,) = Classifier(structure, valid=str(path), tokens=tokens).held_out_batches()
    assert batch.inputs.tolist() == [indices]


def test_a_label_of_the_data_that_the_model_has_not_is_told(structure, tmp_path):
    path = tmp_path / "valid"
    path.write_text("a X\nb Z\n")
    task = Tagger(structure, valid=str(path))
    with pytest.raises(RecipeError, match=r"label 'Z', which is not one of the model's 2 \(X, Y\)"):
        task.evaluate(task.build())


def test_labels_given_go_before_those_of_the_checkpoint(structure, tmp_path):
    path = tmp_path / "valid"
    path.write_text("a Z\n")
    (batch,) = Tagger(structure, valid=str(path), labels=["W", "Z"]).held_out_batches()
    assert batch.targets.tolist() == [[1]]


def test_too_little_data_to_hold_any_back_is_told(structure, tmp_path):
    path = tmp_path / "data"
    path.write_text("a X\n")
    task = Tagger(structure, data=str(path))
    task.evaluate(task.build())
    with pytest.raises(RecipeError, match="0 sequences to train on"):
        next(task.train_batches(0, 0))


@pytest.mark.parametrize(
    ("options", "fact"),
    [
        ({"pooling": "first"}, "pooling: expected one of last, mean, max, got"),
        ({"tokens": "bytes"}, "tokens: expected one of characters, words, got"),
        ({"batch": 0}, "batch: expected a whole number of at least 1, got 0"),
        ({"nonlinearity": "elu"}, "nonlinearity: expected one of tanh, relu, got"),
        ({"text_column": "a"}, "text_column is given, but not label_column"),
        ({"label_column": "a"}, "label_column is given, but not text_column"),
    ],
)
def test_a_bad_option_is_told(structure, options, fact):
    with pytest.raises(RecipeError, match=fact):
        Classifier(structure, data="data", **options)


def test_a_classifier_reads_columns_with_names(structure, tmp_path):
    path = tmp_path / "valid.csv"
    path.write_text("sort,words\nY,a b c\nX,b\n")
    columns = {"text_column": "words", "label_column": "sort"}
    task = Classifier(structure, valid=str(path), pooling="max", **columns)
    assert task.evaluate(Copying(pooled=True))["accuracy"] == 0.5


def test_a_tagger_of_characters_has_a_label_for_each(describe, tmp_path):
    """Both directions, a vocabulary from a file, labels from the last but one column."""
    vocabulary = tmp_path / "vocabulary"
    vocabulary.write_text("<unk>\na\nb\nc\n")
    path = tmp_path / "valid"
    path.write_text("a X 0\nb Y 1\n\nc X 2\nb X 3\n")
    files = {"valid": str(path), "vocabulary": str(vocabulary)}
    task = Tagger(describe(model()), **files, labels=LABELS, label_column=2)
    assert task.evaluate(Copying(pooled=False))["accuracy"] == 3 / 4
    with pytest.raises(RecipeError, match="label_column: expected a whole number of at least 1"):
        Tagger(describe(model()), **files, label_column=0)
