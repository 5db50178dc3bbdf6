"""JSON of other people's files: a plain value, or a ValueError that says why."""

from __future__ import annotations

import json

import pytest

from ttcompress.system import json as plain_json
from ttcompress.system.json import check_integers, read_json


@pytest.mark.parametrize(
    "value", [3, "é\U0001f600", [1, 2.5, None, True], {"a": {"b": []}, "c": [{}]}, 10**4000]
)
@pytest.mark.parametrize("ascii", [True, False])
def test_plain_values_come_back(value: object, ascii: bool) -> None:
    assert read_json(json.dumps(value, ensure_ascii=ascii).encode()) == value


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "'c' is given twice"),
        (b"1" * 10_000, "digits"),
        (b'["\\ud800"]', "surrogates"),
        (b'{"\\udC00x": 1}', "surrogates"),
        (b'"\xed\xa0\x80"', "codec can't decode"),
        (b"\xff", "codec can't decode"),
        (b"", "Expecting value"),
    ],
)
def test_what_is_not_read_says_why(text: bytes, fact: str) -> None:
    with pytest.raises(ValueError, match=fact):
        read_json(text)


def test_values_are_counted_before_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_json, "MAX_VALUES", 5)
    assert read_json(b"[1, 2, 3]") == [1, 2, 3]
    with pytest.raises(ValueError, match="6 values, but at most 5 are read"):
        read_json(b"[[], {}, 1, 2]")


def test_integers_are_held_to_64_bits() -> None:
    check_integers({"a": [2**63 - 1, -(2**63)], "b": 1e300, "c": "x", "d": True})
    for large in (2**63, -(2**63) - 1, 10**400):
        with pytest.raises(ValueError, match="64 bits"):
            check_integers({"a": [{"b": large}]})
