import pytest

from ttcompress.errors import InputError, RecipeError
from ttcompress.tasks.data_files import DataFiles, check_choice, check_positive, read_text
from ttcompress.tasks.label_files import Example, read_classified, read_tagged

TWO = [Example(("EU", "rejects"), ("ORG", "O")), Example(("Peter",), ("PER",))]

TAGGED = {
    "spaces": "EU NNP B ORG\nrejects VBZ B O\n\nPeter NNP B PER\n",
    "tabs": "EU\tORG\nrejects\tO\n\n\nPeter\tPER",
    "documents": "-DOCSTART- -X- O O\n\nEU ORG\nrejects O\n\n-DOCSTART- O\n\nPeter PER\n",
    "json": '{"tokens": ["EU", "rejects"], "labels": ["ORG", "O"]}\n\n'
    '{"id": 2, "tokens": ["Peter"], "labels": ["PER"]}\n',
    "blank ends": "\n\n EU ORG \nrejects O\n  \nPeter PER\n\n",
}


@pytest.mark.parametrize("layout", TAGGED)
def test_all_layouts_of_tagged_sequences_are_one(layout, tmp_path):
    path = tmp_path / "data"
    path.write_text(TAGGED[layout], encoding="utf-8")
    assert read_tagged("tagger", None, str(path)) == TWO


def test_a_string_of_tokens_is_one_of_characters(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text('{"tokens": "a b", "labels": [1, 0, 1]}')
    assert read_tagged("tagger", None, str(path)) == [Example(("a", " ", "b"), ("1", "0", "1"))]


CLASSIFIED = {
    "tabs": "good film\tpos\nbad\tneg\n",
    "json": '{"text": "good film", "label": "pos"}\n{"tokens": ["bad"], "label": "neg"}',
}


@pytest.mark.parametrize("layout", CLASSIFIED)
def test_all_layouts_of_classified_texts_are_one(layout, tmp_path):
    path = tmp_path / "data"
    path.write_text(CLASSIFIED[layout])
    assert read_classified("classifier", str.split, None, str(path)) == [
        Example(("good", "film"), ("pos",)),
        Example(("bad",), ("neg",)),
    ]


def test_the_column_of_the_labels_can_be_chosen(tmp_path):
    path = tmp_path / "data"
    path.write_text(TAGGED["spaces"])
    expected = [Example(("EU", "rejects"), ("NNP", "VBZ")), Example(("Peter",), ("NNP",))]
    assert read_tagged("tagger", 2, str(path)) == expected
    with pytest.raises(RecipeError, match="data:1: has 4 columns, but 5 are needed"):
        read_tagged("tagger", 5, str(path))


def test_columns_of_a_table_are_read_by_name(tmp_path):
    path = tmp_path / "data"
    path.write_text('id,stars,review\n1,5,"good, really"\n2,1,bad\n')
    assert read_classified("classifier", str.split, ("review", "stars"), str(path)) == [
        Example(("good,", "really"), ("5",)),
        Example(("bad",), ("1",)),
    ]
    with pytest.raises(RecipeError, match="has no column 'text'; its 3 columns are id, stars"):
        read_classified("classifier", str.split, ("text", "stars"), str(path))
    path.write_text("review,stars\ngood,1\n,2\n")
    with pytest.raises(RecipeError, match="data: row 2: has 0 tokens, but at least 1"):
        read_classified("classifier", str.split, ("review", "stars"), str(path))


BAD_TAGGED = {
    "one column": ("EU ORG\nrejects\n", "data:2: has 1 column, but 2 are needed"),
    "no labels": ('{"tokens": ["EU"]}', "data:1: has no field `labels`, only tokens"),
    "too few labels": ('{"tokens": ["a", "b"], "labels": ["X"]}', "got 2 tokens and 1 labels"),
    "no list": ('{"tokens": 3, "labels": ["X"]}', "expected two lists"),
    "broken json": (
        '{"tokens": [], "labels": []}\n{"to',
        "data:1: expected at least 1 token and a label for each, got 0 tokens",
    ),
    "not json": ('{"tokens": ["a"], "labels": ["X"]}\nEU ORG', "data:2: is not JSON"),
    "endless lists": ('{"tokens": ["a"], "labels": ["X"]}\n' + "[" * 10**5, "is not JSON: nested"),
    "no object": ('{"tokens": ["a"], "labels": ["X"]}\n[1]', "data:2: is not a JSON object"),
}


@pytest.mark.parametrize("name", BAD_TAGGED)
def test_a_bad_line_is_named(name, tmp_path):
    text, fact = BAD_TAGGED[name]
    path = tmp_path / "data"
    path.write_text(text)
    with pytest.raises(RecipeError) as caught:
        read_tagged("tagger", None, str(path))
    assert fact in str(caught.value)


BAD_CLASSIFIED = {
    "one column": ("good film pos\n", "data:1: has 1 column"),
    "no text": ("\tpos\n", "data:1: has 0 tokens, but at least 1"),
    "no label": ('{"text": "good"}', "data:1: has no field `label`, only text"),
    "no list": ('{"tokens": 3, "label": "X"}', 'data:1: expected {"text"'),
}


@pytest.mark.parametrize("name", BAD_CLASSIFIED)
def test_a_bad_line_of_a_classifier_is_named(name, tmp_path):
    text, fact = BAD_CLASSIFIED[name]
    path = tmp_path / "data"
    path.write_text(text)
    with pytest.raises(RecipeError) as caught:
        read_classified("classifier", str.split, None, str(path))
    assert fact in str(caught.value)


def test_a_text_that_cannot_be_read_is_told(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_text(tmp_path / "absent", "tagger")
    with pytest.raises(InputError, match="is a folder"):
        read_text(tmp_path, "tagger")
    (tmp_path / "empty").write_text(" \n")
    with pytest.raises(RecipeError, match="is empty"):
        read_text(tmp_path / "empty", "tagger")
    (tmp_path / "latin").write_bytes(b"caf\xe9 au lait")
    with pytest.raises(RecipeError, match=r"is not UTF-8 text \(at byte 3\)"):
        read_text(tmp_path / "latin", "tagger")


def items(path: str) -> list[str]:
    return [f"{path}{k}" for k in range(10)]


def test_one_file_is_cut_in_two_and_two_are_not():
    one = DataFiles("tagger", "data", "d", None, None)
    assert one.read_train(items) == items("d")[:9]
    assert one.read_held_out(items) == ["d9"]
    two = DataFiles("tagger", "data", None, "t", "v")
    assert (two.read_train(items), two.read_held_out(items)) == (items("t"), items("v"))


def test_sources_that_leave_a_question_are_errors():
    with pytest.raises(RecipeError, match="no data to measure on"):
        DataFiles("tagger", "data", None, "t", None)
    with pytest.raises(RecipeError, match="data and valid are both given"):
        DataFiles("tagger", "data", "d", None, "v")
    with pytest.raises(RecipeError, match="no data to train on, only valid"):
        DataFiles("tagger", "data", None, None, "v").read_train(items)


@pytest.mark.parametrize("value", [0, -1, 1.5, "8", True, None])
def test_counts_are_whole_and_positive(value):
    with pytest.raises(
        RecipeError, match="task tagger: batch: expected a whole number of at least 1, got"
    ):
        check_positive("tagger", batch=value)


def test_words_are_of_the_choices():
    check_choice("tagger", "pooling", "mean", ("last", "mean"))
    with pytest.raises(RecipeError, match="pooling: expected one of last, mean, got 'men'"):
        check_choice("tagger", "pooling", "men", ("last", "mean"))
