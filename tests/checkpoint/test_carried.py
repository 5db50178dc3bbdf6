"""Typed JSON: what goes in comes out, types and order included."""

import json
import math
from collections import OrderedDict
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ttcompress.checkpoint.carried import Carrier, NotCarried, rebuild
from ttcompress.checkpoint.pickle.builders import DTYPES
from ttcompress.checkpoint.pickle.objects import Global, PickledObject
from ttcompress.checkpoint.tensors import StoredTensor
from ttcompress.checkpoint.tree import Tree
from ttcompress.errors import ArtifactError

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.binary().map(bytearray)
    | st.complex_numbers(allow_nan=False)
)
KEYS = st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.tuples(st.text())
VALUES = st.recursive(
    SCALARS | st.sets(KEYS) | st.frozensets(KEYS),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(KEYS, inner)
        | st.dictionaries(KEYS, inner).map(OrderedDict)
    ),
    max_leaves=15,
)


def encode(value: Any, **names: StoredTensor) -> Any:
    stored = {stored: name for name, stored in names.items()}
    return Carrier(Tree(None), stored).encode(value)


def shape_of(value: Any) -> Any:
    """Types and order, which `==` does not see."""
    if isinstance(value, dict):
        pairs = [(shape_of(key), shape_of(child)) for key, child in value.items()]
        return type(value).__name__, pairs
    if isinstance(value, list | tuple):
        return type(value).__name__, [shape_of(item) for item in value]
    if isinstance(value, set | frozenset):
        return type(value).__name__, sorted(repr(shape_of(item)) for item in value)
    return type(value).__name__, repr(value)


@given(VALUES)
def test_what_goes_in_comes_out(value: Any) -> None:
    text = json.dumps(encode(value), allow_nan=False, sort_keys=True)
    back = rebuild(json.loads(text), {})
    assert back == value
    assert shape_of(back) == shape_of(value)


def test_a_set_is_written_in_one_order() -> None:
    # -1 and -2 have the same hash, so that the order they are added in is the order of the set.
    assert list({-1, -2}) != list({-2, -1})
    assert encode({-1, -2}) == encode({-2, -1})


def test_not_a_number_comes_back() -> None:
    assert math.isnan(rebuild(encode(math.nan), {}))


def test_number_types_come_back() -> None:
    for name, dtype in DTYPES.items():
        assert rebuild(encode(Global(*name.rsplit(".", 1))), {}) is dtype


def test_a_tensor_in_two_places_is_one_object() -> None:
    stored = StoredTensor("s", torch.float32, 0, (2,), (1,))
    tensor = torch.ones(2)
    back = rebuild(encode({"a": stored, "b": [stored]}, w=stored), {"w": tensor})
    assert back["a"] is tensor and back["b"][0] is tensor


def test_an_object_is_its_attributes_entries_or_arguments() -> None:
    plain, entries, call = (PickledObject(Global("m", "C"), args) for args in ((), (), (1, 2)))
    plain.build({"x": 1})
    entries.pairs["y"] = 2
    back = rebuild(encode([plain, entries, call]), {})
    assert back == [{"x": 1}, {"y": 2}, {"class": "m.C", "args": (1, 2)}]


@pytest.mark.parametrize(
    "value",
    [
        10**5000,
        {PickledObject(Global("m", "C"), ()): 1},
        {(PickledObject(Global("m", "C"), ()),): 1},
        {StoredTensor("s", torch.float32, 0, (2,), (1,))},
        StoredTensor("s", torch.float32, 0, (2,), (1,)),
        ["x" * 1000] * 17_000,
        object(),
    ],
    ids=["huge int", "object key", "tuple key", "tensor in set", "nameless", "17 MB", "unknown"],
)
def test_what_cannot_be_carried_says_so(value: Any) -> None:
    with pytest.raises(NotCarried):
        encode(value)


@pytest.mark.parametrize(
    "damaged",
    [
        {"tensor": "missing"},
        {"unknown": 1},
        {"dict": [[1]]},
        {"dict": [[[1], 2]]},
        {"dict": 3},
        {},
        {"a": 1, "b": 2},
        {"float": "x"},
        {"bytes": "?"},
        {"surrogates": "7Q=="},
        json.loads("[" * 900 + "]" * 900),
        {"dtype": "nn"},
        {"complex": [1, 2, 3]},
        {"complex": [10**400, 0]},
        {"object": 3},
        [{"tuple": 1}],
    ],
)
def test_damaged_content_is_an_artifact_error(damaged: Any) -> None:
    with pytest.raises(ArtifactError, match="damaged"):
        rebuild(damaged, {})


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\ud800\udc00", "é\U0001f600"])
def test_text_that_json_cannot_hold_is_carried_too(text: str) -> None:
    """A vocabulary of a text that was read byte by byte has such entries."""
    carried = encode({text: [text]})
    json.dumps(carried, ensure_ascii=False).encode()
    assert rebuild(carried, {}) == {text: [text]}
