"""Text out of other people's files, made safe for each place that it goes to."""

import sys
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttcompress.system.text import (
    clean_for_terminal,
    clean_for_xml,
    clean_line,
    clip,
    find_half_surrogate,
)

ANY = st.text(st.characters(exclude_categories=()))


@given(ANY)
def test_a_line_is_one_line_that_can_be_written(text: str) -> None:
    cleaned = clean_line(text)
    assert len(cleaned) == len(text) and len(cleaned.splitlines()) <= 1
    cleaned.encode()
    assert all(new in (old, "?") for old, new in zip(text, cleaned, strict=True))


@given(ANY, st.integers(1, 100))
def test_a_clipped_text_is_its_beginning(text: str, length: int) -> None:
    assert clip(text, length) == clean_line(text)[:length]


@given(ANY)
def test_nothing_commands_a_terminal(text: str) -> None:
    cleaned = clean_for_terminal(text)
    cleaned.encode()
    controls = {c for c in cleaned if ord(c) < 32 or 127 <= ord(c) < 160}
    assert controls <= {"\t", "\n", "\r"}
    assert "\r" not in cleaned.replace("\r\n", "")


def test_ordinary_text_stays() -> None:
    text = "name\té\r\n  日本語 🙂\n"
    assert clean_for_terminal(text) == clean_for_xml(text) == text
    assert clean_line("lstm.weight_hh_l0 é") == "lstm.weight_hh_l0 é"


@given(ANY)
def test_xml_can_hold_it(text: str) -> None:
    root = ElementTree.Element("a")
    root.text = clean_for_xml(text)
    ElementTree.fromstring(ElementTree.tostring(root, encoding="utf-8"))


@given(ANY)
def test_the_first_half_of_a_pair_is_where_encoding_fails(text: str) -> None:
    at = find_half_surrogate(text)
    if at is None:
        text.encode()
    else:
        with pytest.raises(UnicodeEncodeError) as caught:
            text.encode()
        assert caught.value.start == at


def test_only_control_characters_and_halves_are_kept_from_a_terminal() -> None:
    replaced = [c for c in map(chr, range(sys.maxunicode + 1)) if clean_for_terminal(c) == "?"]
    assert len(replaced) == 1 + (32 - 2) + (160 - 127) + 2048  # with "?" itself
