import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttcompress.errors import InputError, RecipeError
from ttcompress.tasks.vocabulary import Vocabulary, find_labels, find_vocabulary, tables_in

ALPHABET = "abcdefghijklmnopqrst"
INDICES = {letter: k for k, letter in enumerate(ALPHABET)}


@pytest.mark.parametrize(
    "content",
    [
        {"vocab": INDICES},
        {"stoi": INDICES, "itos": list(ALPHABET)},
        {"int2char": dict(enumerate(ALPHABET)), "epoch": 3},
        {"chars": ALPHABET},
        {"hyper_parameters": {"chars": tuple(ALPHABET), "hidden": 20, "layers": 2}},
        {"tokenizer": {"word2idx": INDICES}, "labels": [f"label {k}" for k in range(20)]},
        {"vocab": INDICES, "config": {"embedding_size": 64, "hidden_size": 256}},
    ],
)
def test_a_vocabulary_is_found_wherever_it_is(content):
    assert find_vocabulary(content, 20, "charlm").indices == INDICES


@given(st.lists(st.text(min_size=1), min_size=1, unique=True))
def test_all_ways_to_write_a_table_are_one(symbols):
    indices = {symbol: k for k, symbol in enumerate(symbols)}
    ways = [indices, dict(enumerate(symbols)), symbols, tuple(symbols)]
    assert [dict(tables_in({"t": way})) for way in ways] == [{"t": indices}] * 4


def test_an_embedding_may_have_rows_to_spare():
    assert find_vocabulary({"vocab": INDICES}, 32, "charlm").indices == INDICES


def test_the_whole_vocabulary_goes_before_a_part_of_it():
    content = {"vowels and more": ALPHABET[:16], "vocab": INDICES, "frequent": ALPHABET[1:18]}
    assert find_vocabulary(content, 20, "charlm").indices == INDICES


def test_two_different_vocabularies_are_a_question():
    content = {"source": INDICES, "other": {letter: 19 - k for letter, k in INDICES.items()}}
    with pytest.raises(RecipeError, match=r"2 tables could be the vocabulary.*source, other"):
        find_vocabulary(content, 20, "charlm")


@pytest.mark.parametrize("content", [None, {}, {"vocab": {"a": 0, "b": 1}}, {"losses": [0.5, 0.4]}])
def test_no_vocabulary_is_told_with_the_cure(content):
    with pytest.raises(RecipeError, match=r"the vocabulary must have 20 entries.*vocabulary: FILE"):
        find_vocabulary(content, 20, "charlm")


def test_a_vocabulary_may_come_from_a_file(tmp_path):
    as_json, as_lines = tmp_path / "vocab.json", tmp_path / "vocab.txt"
    as_json.write_text(json.dumps({"model": {"vocab": INDICES}}))
    as_lines.write_text("\n".join(ALPHABET) + "\n")
    for path in (as_json, as_lines):
        assert find_vocabulary(None, 20, "charlm", str(path)).indices == INDICES
    with pytest.raises(InputError, match="no such file"):
        find_vocabulary(None, 20, "charlm", str(tmp_path / "absent"))
    for damaged in ("{", "[" * 10**5):
        as_json.write_text(damaged)
        with pytest.raises(RecipeError, match="is not JSON"):
            find_vocabulary(None, 20, "charlm", str(as_json))


def test_lines_that_begin_with_a_brace_are_no_json(tmp_path):
    (tmp_path / "vocab.txt").write_text("{\n}\n[\n")
    found = find_vocabulary(None, 3, "charlm", str(tmp_path / "vocab.txt"))
    assert found.indices == {"{": 0, "}": 1, "[": 2}


@pytest.mark.parametrize("entry", ["<unk>", "[UNK]", "<UNK>", "unk", "\N{REPLACEMENT CHARACTER}"])
def test_the_entry_for_everything_else_is_known_by_its_name(entry):
    indices = {"a": 0, "b": 1, "c": 2, entry: 3}
    vocabulary = find_vocabulary({"vocab": indices}, 4, "charlm")
    assert vocabulary.encode("abz", "text") == [0, 1, 3]


def test_the_entry_for_everything_else_may_be_named():
    vocabulary = find_vocabulary({"vocab": INDICES}, 20, "charlm", unknown="t")
    assert vocabulary.encode("abZ", "text") == [0, 1, 19]
    with pytest.raises(RecipeError, match="unknown: '<oov>' is not among the 20"):
        find_vocabulary({"vocab": INDICES}, 20, "charlm", unknown="<oov>")


def test_what_the_vocabulary_lacks_is_an_error_without_such_an_entry():
    with pytest.raises(RecipeError, match=r"text\.txt: 2 of 5 symbols.*'!', 'é'.*unknown: SYMBOL"):
        Vocabulary(INDICES, None).encode("abcé!", "text.txt")


def test_data_that_is_mostly_unknown_is_not_the_models():
    vocabulary = Vocabulary(INDICES, 0)
    assert vocabulary.encode("abXY", "text.txt") == [0, 1, 0, 0]
    with pytest.raises(
        RecipeError, match=r"3 of 5 symbols.*not the kind of data that the model reads"
    ):
        vocabulary.encode("abXYZ", "text.txt")


@pytest.mark.parametrize(
    ("symbols", "of_characters"),
    [(["a", "b", "<unk>"], True), (["the", "a", "of"], False), (["a", "<unk>"], False)],
)
def test_most_entries_tell_characters_from_words(symbols, of_characters):
    indices = {symbol: k for k, symbol in enumerate(symbols)}
    assert Vocabulary(indices, None).is_of_characters is of_characters


@pytest.mark.parametrize(
    "content",
    [
        {"labels": ["neg", "pos"]},
        {"label2id": {"neg": 0, "pos": 1}, "id2label": {0: "neg", 1: "pos"}},
        {"config": {"class_names": ("neg", "pos")}, "stages": ["one", "two"]},
        {"tag_to_ix": {"neg": 0, "pos": 1}},
    ],
)
def test_labels_are_found_by_their_name(content):
    assert find_labels(content, 2, "tagger") == {"neg": 0, "pos": 1}


def test_labels_may_be_given_and_are_else_numbers(tmp_path):
    (tmp_path / "labels.txt").write_text("neg\npos\n")
    for given_labels in (["neg", "pos"], {"neg": 0, "pos": 1}, str(tmp_path / "labels.txt")):
        assert find_labels({}, 2, "tagger", given_labels) == {"neg": 0, "pos": 1}
    assert find_labels({"vocab": ["x", "y"]}, 2, "tagger") == {"0": 0, "1": 1}


def test_counts_of_classes_are_no_labels():
    content = {"class_counts": {"neg": 120, "pos": 80}}
    assert find_labels(content, 2, "tagger") == {"0": 0, "1": 1}


def test_labels_of_another_number_are_an_error():
    with pytest.raises(
        RecipeError, match=r"the labels must have 2 entries.*with 3.*labels: \[A, B\]"
    ):
        find_labels({}, 2, "tagger", ["a", "b", "c"])
