import ast
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttcompress.samples import corpus
from ttcompress.samples.corpus import SPLITS, UNKNOWN


# Worked out once from sha256: a change of the hash or of the thresholds would move held-out text
# into the training text of models that exist.
@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("numeric-types", "test"),
        ("traceback.py", "test"),
        ("try", "valid"),
        ("subprocess.py", "valid"),
        ("bitwise", "train"),
        ("json/decoder.py", "train"),
    ],
)
def test_a_document_stays_in_its_split(name: str, split: str) -> None:
    assert corpus.split_of(name) == split


def test_about_a_tenth_of_all_names_is_test() -> None:
    counts = Counter(corpus.split_of(f"module{k}.py") for k in range(4000))
    assert counts["test"] / 4000 == pytest.approx(24 / 256, abs=0.02)
    assert counts["valid"] / 4000 == pytest.approx(16 / 256, abs=0.02)


def test_every_library_file_is_in_one_split_and_no_test_is() -> None:
    files = [path for split in SPLITS for path in corpus.library_files(split)]
    assert len(files) == len(set(files)) > 400
    assert any(path.name == "textwrap.py" for path in files)
    assert not any(corpus.EXCLUDED_FOLDERS & set(path.parts[-3:]) for path in files)


def test_a_paragraph_is_kept_once_by_the_most_held_out_split(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts = {
        "train": ["of all\n\nof train and valid\n\ntwice", "twice\n\nlast"],
        "valid": ["\nof train and valid\n\nof all", "own"],
        "test": ["of all\n\nsecond line\nof a paragraph\n"],
    }
    monkeypatch.setattr(corpus, "documents", texts.__getitem__)
    assert corpus.load("test") == "of all\n\nsecond line\nof a paragraph"
    assert corpus.load("valid") == "of train and valid\n\nown"
    assert corpus.load("train") == "twice\n\nlast"


@pytest.mark.slow
def test_the_real_text_is_large_enough_and_nothing_held_out_is_trained() -> None:
    train, test = corpus.load("train"), corpus.load("test")
    assert len(train) > 1_400_000
    assert len(test) > 0.75 * corpus.EVALUATED_CHARACTERS
    held_out = set(test.split(corpus.PARAGRAPH_BREAK))
    assert held_out.isdisjoint(train.split(corpus.PARAGRAPH_BREAK))


def test_docstrings_are_found_at_every_depth_and_lose_their_indentation() -> None:
    source = '''
"""Of the module."""

class Outer:
    """Of the class."""

    async def method(self):
        """Of the method.

        Second paragraph.
        """
        def inner():
            """Of the inner function."""
        return "not a docstring"
'''
    assert list(corpus.docstrings(source)) == [
        "Of the module.",
        "Of the class.",
        "Of the method.\n\nSecond paragraph.",
        "Of the inner function.",
    ]


@pytest.mark.parametrize("source", ["print 'Python 2'", "\0", "def f(:"])
def test_what_is_not_python_has_no_docstrings(source: str) -> None:
    with pytest.raises((SyntaxError, ValueError)):
        ast.parse(source)
    assert list(corpus.docstrings(source)) == []


def test_the_vocabulary_leaves_out_what_is_rare() -> None:
    assert corpus.vocabulary("abbccc", at_least=2) == {UNKNOWN: 0, "b": 1, "c": 2}
    assert corpus.vocabulary(UNKNOWN * 9, at_least=2) == {UNKNOWN: 0}


@given(st.text(), st.integers(1, 3))
def test_encoding_keeps_known_characters_and_gives_the_others_one_index(
    text: str, at_least: int
) -> None:
    vocab = corpus.vocabulary(text, at_least)
    characters = {index: character for character, index in vocab.items()}
    assert sorted(characters) == list(range(len(vocab)))
    counts = Counter(text)
    expected = [c if counts[c] >= at_least else UNKNOWN for c in text]
    assert [characters[index] for index in corpus.encode(text, vocab)] == expected
