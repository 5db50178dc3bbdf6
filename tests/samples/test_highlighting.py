import tokenize
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttcompress.samples import highlighting
from ttcompress.samples.highlighting import LABELS, SPACE, WINDOW

INITIALS = "knsc1o "  # of LABELS: what the tables below are drawn with


def drawn(source: str) -> str:
    return "".join(INITIALS[label] for label in highlighting.label(source))


@pytest.mark.parametrize(
    ("source", "labels"),
    [
        ("if a: b", "kk no n"),
        ("x = 1.5e3  # why\n", "n o 11111  ccccc "),
        ("def f(*a):\n    return None", "kkk noonoo     kkkkkk kkkk"),
        ("'''a\nb'''\n'c'", "sssssssss sss"),
        ("match = match", "nnnnn o nnnnn"),  # a soft keyword is a name wherever it stands
        ("a = \\\n  b", "n o     n"),
        ("é = 'ü'  # ö", "n o sss  ccc"),
        ("\f\na", "  n"),
        ("f'{a!r} {b:>{c}}' + d", "sssssssssssssssss o n"),
        ("rb'a' f'{1}'", "sssss ssssss"),
        ("f'{g(f\"{x}\")}'; 1", "sssssssssssssso 1"),
        ("", ""),
    ],
)
def test_every_character_has_the_label_of_its_token(source: str, labels: str) -> None:
    assert drawn(source) == labels


@pytest.mark.parametrize("source", ["'''open", "(1,"])
def test_what_is_not_python_is_refused(source: str) -> None:
    with pytest.raises((tokenize.TokenError, SyntaxError)):
        highlighting.label(source)


def test_a_string_of_many_tokens_is_one_string(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tokens of Python 3.12, whichever Python runs this."""
    source = """a+f'{b:{f"{c}"}}'+d"""
    kinds = {"NAME": tokenize.NAME, "OP": tokenize.OP, "FSTRING_START": 900, "FSTRING_END": 901}
    pieces = [
        ("NAME", "a"), ("OP", "+"), ("FSTRING_START", "f'"), ("OP", "{"), ("NAME", "b"),
        ("OP", ":"), ("OP", "{"), ("FSTRING_START", 'f"'), ("OP", "{"), ("NAME", "c"), ("OP", "}"),
        ("FSTRING_END", '"'), ("OP", "}"), ("OP", "}"), ("FSTRING_END", "'"), ("OP", "+"),
        ("NAME", "d"),
    ]  # fmt: skip
    ends = list(accumulate(len(text) for _, text in pieces))
    tokens = [
        tokenize.TokenInfo(kinds[kind], text, (1, end - len(text)), (1, end), source)
        for (kind, text), end in zip(pieces, ends, strict=True)
    ]
    for kind in ("FSTRING_START", "FSTRING_END"):
        monkeypatch.setitem(tokenize.tok_name, kinds[kind], kind)
    monkeypatch.setattr(tokenize, "generate_tokens", lambda readline: iter(tokens))
    assert drawn(source) == "no" + "s" * 15 + "on"


TOKENS = {
    "keyword": st.sampled_from(["for", "None", "lambda"]),
    "name": st.sampled_from(["x", "match", "länger"]),
    "string": st.sampled_from(["'a'", "f'{b}'", 'r"""\n"""']),
    "number": st.sampled_from(["0", "1_000.5j", "0xff"]),
    "operator": st.sampled_from(["+", "**", "->", ":="]),
}
PIECES = st.sampled_from(list(TOKENS)).flatmap(
    lambda name: TOKENS[name].map(lambda text: (text, LABELS.index(name)))
)


@given(st.lists(PIECES), st.sampled_from([" ", "  ", "\t", " \\\n"]))
def test_a_line_is_labelled_piece_by_piece(pieces: list[tuple[str, int]], space: str) -> None:
    source = space.join(text for text, _ in pieces)
    expected = bytes([SPACE]) * len(space)
    truth = expected.join(bytes([label]) * len(text) for text, label in pieces)
    assert highlighting.label(source) == truth


def test_the_library_is_labelled_one_to_one_with_every_label() -> None:
    text, labels = highlighting.load("test")
    assert len(text) == len(labels) > 300_000
    assert set(labels) == set(range(len(LABELS)))
    spaces = {character for character, label in zip(text, labels, strict=True) if label == SPACE}
    assert spaces <= set(" \t\n\f\\")


def test_windows_are_spread_over_the_whole_text() -> None:
    text, labels = "".join(chr(k) for k in range(10 * WINDOW + 7)), bytes(10 * WINDOW + 7)
    chosen = highlighting.windows(text, labels, 3)
    assert [ord(window[0]) // WINDOW for window, _ in chosen] == [0, 3, 6]
    assert all(len(window) == len(marks) == WINDOW for window, marks in chosen)
    everything = highlighting.windows(text, labels, 10)
    assert "".join(window for window, _ in everything) == text[: 10 * WINDOW]


def test_too_few_windows_are_an_error_and_not_a_shorter_list() -> None:
    with pytest.raises(ValueError, match="expected at least 2 windows of 512 characters, got 1"):
        highlighting.windows("a" * 1023, bytes(1023), 2)
